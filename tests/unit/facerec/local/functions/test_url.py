"""What the function URL refuses before a function is invoked."""

from typing import cast

import pytest
from werkzeug.test import create_environ, run_wsgi_app

from facerec.local.functions.pool import FunctionPool
from facerec.local.functions.url import FunctionUrl

NO_POOL = cast("FunctionPool", None)
"""For requests that do not reach the function."""


@pytest.mark.parametrize("length", ["abc", "-5", "1e3", "+5", "\N{ARABIC-INDIC DIGIT FIVE}"])
def test_function_url_refuses_a_length_that_is_no_number(length: str) -> None:
    """By a JSON error, as every other mistake of a client."""
    environ = create_environ(method="POST", base_url="http://127.0.0.1:9000") | {"CONTENT_LENGTH": length}
    body, status, headers = run_wsgi_app(FunctionUrl(NO_POOL, credentials=None, region="us-east-1"), environ)
    assert (status, headers["content-type"]) == ("400 Bad Request", "application/json")
    assert b"".join(body) == b'{"Message": "Content-Length is no number"}'
