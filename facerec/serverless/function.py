"""What both functions share: the engine starts first, an event goes to its route, and an invocation is counted."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from facerec.serverless.events import EventKind, kind_of
from facerec.serverless.invocation import Invocation, LambdaContext
from facerec.serverless.telemetry import Telemetry

log = structlog.get_logger(__name__)

Route = Callable[[Mapping[str, Any], Invocation], Any]


class Function:
    """The handler of a function: `routes` says what answers which kind of event.

    `before` runs at the start of each invocation, because threads stand still in between. When `engine_ended` is true
    at the end of one, the process exits: Lambda starts another, and the messages are delivered again.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        routes: Mapping[EventKind, Route],
        *,
        engine_ended: Callable[[], bool],
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self._telemetry = telemetry
        self._routes = routes
        self._engine_ended = engine_ended
        self._before = before
        self.handler = telemetry.in_context(self._invoke)

    def _invoke(self, event: Any, context: LambdaContext) -> Any:
        kind = kind_of(event)
        route = self._routes.get(kind) if kind is not None else None
        if route is None:
            taken = ", ".join(sorted(self._routes))
            raise ValueError(f"the function does not take such an event; it takes events of {taken}")
        invocation = Invocation(context)
        try:
            self._before()
            return route(event, invocation)
        finally:
            invocation.end()
            self._telemetry.count(context, invocation)
            if self._engine_ended():
                log.error("engine_ended", remedy="Lambda starts the function again")
                sys.exit(1)
