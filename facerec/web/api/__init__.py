"""The APIs beside `POST /`: CompreFace's, Rekognition's and our own; each is a blueprint over the same services."""

from dataclasses import dataclass

from flask import Flask

from facerec.ports import EnrolledPeople, ObjectStore
from facerec.settings import Settings
from facerec.web.asking import Asker
from facerec.web.auth.access import AccessControl


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServices:
    """What the APIs work on."""

    settings: Settings
    store: ObjectStore
    asker: Asker
    people: EnrolledPeople
    access: AccessControl


def register_apis(app: Flask, services: ApiServices) -> None:
    """Add the routes of every API."""
    del app, services
