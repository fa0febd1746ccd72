"""The app tier's EC2 instances: what EC2 gives them to start with, and how they become workers."""
