"""The functions as a zip archive for Lambda's managed Python runtime, which SnapStart needs: docs/serverless.md."""
