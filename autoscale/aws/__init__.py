"""The autoscaler's ports on AWS: SQS and CloudWatch, EC2, and the fleet's table in DynamoDB."""
