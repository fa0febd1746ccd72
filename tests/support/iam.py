"""IAM's verdict on a call, as far as our policies use the language: allows, exact names, `*`, and four operators."""

import re
from collections.abc import Mapping
from typing import Any

Context = Mapping[str, str | list[str]]


def allowed(policy: Any, action: str, resource: str, context: Context | None = None) -> str | None:
    """The `Sid` of the statement that allows the action on the resource, if one does."""
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        if (
            action in statement["Action"]
            and any(_like(pattern, resource) for pattern in statement["Resource"])
            and all(_holds(name, wanted, context or {}) for name, wanted in statement.get("Condition", {}).items())
        ):
            return str(statement["Sid"])
    return None


def _like(pattern: str, text: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text) is not None


def _holds(operator: str, wanted: Mapping[str, Any], context: Context) -> bool:
    """Every key must be there, but for `ForAllValues`, and fit."""
    match operator:
        case "StringEquals" | "Bool":
            return all(context.get(key) == value for key, value in wanted.items())
        case "ArnLike":
            return all(_like(value, str(context.get(key, ""))) for key, value in wanted.items())
        case "ForAllValues:StringEquals":
            return all(set(context.get(key, [])) <= set(values) for key, values in wanted.items())
    raise NotImplementedError(operator)
