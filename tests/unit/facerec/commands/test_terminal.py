"""Lengths of time as people write them on the command line."""

from datetime import UTC, datetime, timedelta

import click
import pytest

from facerec.commands.terminal import Duration


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("1.5h", timedelta(hours=1.5)),
        ("2d", timedelta(days=2)),
        ("0m", timedelta()),
        ("3650d", timedelta(days=3650)),
    ],
)
def test_duration_is_a_number_with_its_unit(text: str, length: timedelta) -> None:
    """A date can be computed with each."""
    assert Duration().convert(text, None, None) == length
    assert datetime.now(UTC) - length < datetime.now(UTC) + timedelta(seconds=1)


@pytest.mark.parametrize(
    "text",
    ["soon", "", "15", "m", "-1h", "1h30m", "1 h", "1w", "٣d", "1.d", "inf", "3651d", "999999d", "9" * 400 + "s"],
)
def test_other_text_is_not_a_duration(text: str) -> None:
    """The error says the form and the longest one."""
    with pytest.raises(click.BadParameter, match=r"up to ten years.*15m"):
        Duration().convert(text, None, None)
