"""Which messages the transport takes for tasks; the rest is in the contract and worker tests."""

from types import SimpleNamespace
from typing import Any

import pytest

from facerec.celery_sqs.transport import check_task


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (None, [[], {}, {}]),
        ({}, [[], {}, {}]),
        ({"task": "facerec.recognise"}, [[], {}, {}]),
        ({"task": "facerec.recognise", "id": 5}, [[], {}, {}]),
        ({"task": "facerec.recognise", "id": "x"}, "text"),
        ({"task": "facerec.recognise", "id": "x"}, []),
        ({"task": "facerec.recognise", "id": "x"}, [{}, [], {}]),
        ({"task": "facerec.recognise", "id": "x"}, [[], {}, "embed"]),
        ({"task": "somebody.elses", "id": "x"}, [[], {}, {}]),
    ],
)
def test_check_task_refuses_what_is_no_task(headers: Any, body: Any) -> None:
    """Such a message would hold a place in the worker for ever."""
    with pytest.raises((TypeError, ValueError)):
        check_task(SimpleNamespace(headers=headers, decode=lambda: body), ["facerec.recognise"])


def test_check_task_accepts_a_task() -> None:
    """Celery's second protocol."""
    task = SimpleNamespace(headers={"task": "facerec.recognise", "id": "x"}, decode=lambda: [[1], {}, {"chain": None}])
    check_task(task, ["facerec.recognise"])
