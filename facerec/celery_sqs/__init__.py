"""Celery's SQS transport, hardened: nothing is lost, and a worker can drain."""
