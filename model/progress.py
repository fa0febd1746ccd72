"""How long work tells what it is doing, without knowing to whom."""

from collections.abc import Callable

Report = Callable[[str, float | None], None]
"""Called with what is being done and the share of it that is done (0 to 1, or nothing when that is unknown)."""


def silent(_text: str, _share: float | None) -> None:
    """Report to nobody."""
