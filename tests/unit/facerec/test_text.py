"""Text as people read it."""

import pytest

from facerec.text import counted, duration, for_people, megabytes, one_line


@pytest.mark.parametrize("text", ["a\r\nb", "a\nb", "a\u2028b", "a\x0bb", "a\x85b", "a\x1bb", "a\u202eb", "a\x9bb"])
def test_one_line_has_no_break_and_no_control_character(text: str) -> None:
    """Neither can move a terminal's cursor or turn a line around."""
    assert one_line(text) == "a b"


def test_one_line_keeps_joiners_and_blanks() -> None:
    """Emoji and some scripts need joiners; a file's name is echoed as it is."""
    assert one_line("👩\u200d👧  a\u200cb") == "👩\u200d👧  a\u200cb"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (0, "0 s"),
        (0.35, "350 ms"),
        (4.25, "4.25 s"),
        (45, "45 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
        (3 * 86_400 + 4 * 3600, "3 d 4 h"),
    ],
)
def test_duration_has_the_units_of_its_size(seconds: float, text: str) -> None:
    """At most two units."""
    assert duration(seconds) == text


def test_counts_and_sizes() -> None:
    """In the singular, too."""
    assert (counted(1, "template"), counted(2, "template")) == ("1 template", "2 templates")
    assert (megabytes(15_000_000), megabytes(250_000)) == ("15 MB", "0.25 MB")


@pytest.mark.parametrize(
    ("identities", "false_names", "text"),
    [
        (332, 0.01, "for 332 people at 1 %"),
        (1, 0.003, "for 1 person at 0.3 %"),
        (0, 1, "for 0 people at 100 %"),
        (2, 1e-6, "for 2 people at 0.0001 %"),
    ],
)
def test_threshold_is_for_people_at_a_share_of_strangers(identities: int, false_names: float, text: str) -> None:
    """The share in per cent, without digits that say nothing."""
    assert for_people(identities, false_names) == text
