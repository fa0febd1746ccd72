"""The page routes of the application, found in its table of routes, so that tests forget none."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

import httpx
from flask import Flask

from facerec.web.auth import access
from tests.support.served_web_tier import ServedWebTier

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class PageRoute:
    """A page route with an address that exists."""

    endpoint: str
    path: str
    methods: frozenset[str]

    @property
    def unsafe(self) -> frozenset[str]:
        """The methods that change something."""
        return self.methods - _SAFE


def page_routes(app: Flask, arguments: Mapping[str, str]) -> list[PageRoute]:
    """Find the routes of pages; `arguments` has a value for each argument of an address, or `KeyError` is raised."""
    adapter = app.url_map.bind("127.0.0.1")
    routes = []
    for rule in app.url_map.iter_rules():
        if getattr(app.view_functions[rule.endpoint], access._PAGE, False):
            values = {name: arguments[name] for name in rule.arguments}
            methods = frozenset(rule.methods or ())
            path = adapter.build(rule.endpoint, values, method=min(methods), append_unknown=False)
            routes.append(PageRoute(rule.endpoint, path, methods))
    return routes


def page_answers(web: ServedWebTier, arguments: Mapping[str, str]) -> list[tuple[PageRoute, httpx.Response]]:
    """Open every page route without a browser; each must succeed."""
    answers = []
    with httpx.Client(base_url=web.url, trust_env=False) as client:
        for route in page_routes(web.tier.app, arguments):
            if "GET" in route.methods:
                answer = client.get(route.path)
                assert answer.status_code in {HTTPStatus.OK, HTTPStatus.SEE_OTHER}, (route, answer.text)
                answers.append((route, answer))
    return answers


def page_paths(web: ServedWebTier, arguments: Mapping[str, str]) -> dict[str, str]:
    """Return the addresses that show a page, by endpoint: no photo, no file, no fragment of a page."""
    return {
        route.endpoint: route.path
        for route, answer in page_answers(web, arguments)
        if answer.headers.get("Content-Type", "").startswith("text/html") and "<!doctype html>" in answer.text.lower()
    }
