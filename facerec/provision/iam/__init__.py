"""The least-privilege IAM policy of each role."""
