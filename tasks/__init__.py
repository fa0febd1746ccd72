"""The app tier: Celery's task and the worker process. Celery imports this package in workers only."""

from tasks import recognise, worker

__all__ = ["recognise", "worker"]
