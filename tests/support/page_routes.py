"""The page routes of the application, found in its table of routes, so that tests forget none."""

from collections.abc import Iterator
from dataclasses import dataclass

from flask import Flask
from werkzeug.routing import Rule

from facerec.web.auth import access

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


def page_routes(app: Flask, samples: dict[str, str]) -> Iterator[PageRoute]:
    """Find the routes of pages; `samples` has a value for each argument of an address.

    Raises `KeyError` for an argument without a sample.
    """
    adapter = app.url_map.bind("127.0.0.1")
    for rule in app.url_map.iter_rules():
        if is_page_rule(app, rule):
            values = {name: samples[name] for name in rule.arguments}
            path = adapter.build(rule.endpoint, values, append_unknown=False)
            yield PageRoute(rule.endpoint, path, frozenset(rule.methods or ()))


def is_page_rule(app: Flask, rule: Rule) -> bool:
    """Whether the route is marked as a page's."""
    return getattr(app.view_functions[rule.endpoint], access._PAGE, False)
