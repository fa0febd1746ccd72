"""A Python client of `/api/v1`: `Client(url, key)`. It needs the core install, and imports no Flask, boto3 or numpy."""

from facerec.client.client import Client
from facerec.client.errors import (
    ApiError,
    Conflict,
    Forbidden,
    InvalidPhoto,
    NotDone,
    NotEnrolled,
    NotFound,
    StillPending,
    Unavailable,
    Unreachable,
)

__all__ = [
    "ApiError",
    "Client",
    "Conflict",
    "Forbidden",
    "InvalidPhoto",
    "NotDone",
    "NotEnrolled",
    "NotFound",
    "StillPending",
    "Unavailable",
    "Unreachable",
]
