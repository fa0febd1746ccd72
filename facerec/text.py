"""Text for people: cleaned of control characters; lengths of time, sizes and counts as people write them. Pure."""

import unicodedata

_NOT_TEXT = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_NONCHARACTERS = frozenset("\ufffe\uffff")
"""No XML document can carry them, so S3 cannot list a key that holds one."""
JOINERS = frozenset("\u200c\u200d")
"""Invisible marks that scripts and emoji need: zero-width non-joiner and joiner."""
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def is_text(character: str) -> bool:
    """Whether a character is neither a control, a break, an invisible mark, nor one that no document can carry."""
    return unicodedata.category(character) not in _NOT_TEXT and character not in _NONCHARACTERS


def one_line(text: str) -> str:
    """The text in one line that is safe to show: what is neither text nor a joiner becomes a blank."""
    return "".join(c if is_text(c) or c in JOINERS else " " for c in " ".join(text.splitlines()))


def lines(text: str) -> str:
    """The text with its line feeds and tabs; every other character as in `one_line`."""
    return "".join(c if c in "\n\t" or is_text(c) or c in JOINERS else " " for c in text)


def visible_json(document: str) -> str:
    """JSON in which everything that is not text is escaped: it shows as it is, and reads as the same value."""
    return "".join(c if c == "\n" or is_text(c) else _escaped(c) for c in document)


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", errors="surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def counted(number: int, noun: str) -> str:
    """`1 template`, `2 templates`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def megabytes(count: int) -> str:
    """A number of bytes as `15 MB` or `0.25 MB`."""
    return f"{round(count / 1e6, 2):g} MB"


def duration(seconds: float) -> str:
    """`350 ms`, `4.25 s`, `45 s`, `3 min 05 s`, `2 h 10 min`, `3 d 4 h`; a negative one is 0."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _MINUTE:
        return f"{max(0, seconds):.3g} s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def for_people(identities: int, false_names: float) -> str:
    """What a threshold of the model is for: `for 332 people at 1 %`."""
    return f"for {identities} {'person' if identities == 1 else 'people'} at {100 * false_names:.3g} %"
