"""Creates what the service needs in an AWS account: buckets, queues, tables, launch template and IAM policies."""
