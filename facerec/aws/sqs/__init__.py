"""SQS: queues, results and dead letters."""
