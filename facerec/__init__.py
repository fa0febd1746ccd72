"""Elastic face recognition as a service on AWS.

Importing this package imports nothing else: `celery -A facerec` finds the application in `facerec.celery`.
"""

__version__ = "0.1.0"
