"""Flower with what it lacks for SQS: its events' reader, its broker's queues, and workers known from events alone."""
