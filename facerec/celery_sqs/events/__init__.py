"""Celery's events over SQS, for Flower."""
