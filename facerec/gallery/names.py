"""Names of people: which are valid, and when two of them are one person. Pure.

A name is shown as it was written, cleaned. Two names are one person if they differ only in what cannot be seen or in
how it was typed: `identity_key` decides it, for every command.
"""

import difflib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

from pydantic import TypeAdapter, ValidationError

from facerec.errors import FacerecError
from facerec.message_base import CollectionName
from facerec.messages import NO_FACE, UNKNOWN
from facerec.text import JOINERS, is_text

MAX_IDENTITY_LENGTH = 128

_MAX_WRITTEN = 10 * MAX_IDENTITY_LENGTH
"""Before it is cleaned: the time of that grows with the square of the length, and a body can hold megabytes."""

_IGNORABLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U00016fe4\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Unicode's `Default_Ignorable_Code_Point` (DerivedCoreProperties.txt), and two more that fonts leave blank.

Joiners, variation selectors, Hangul fillers, soft hyphen, byte order mark, marks of direction and tags are among them.
"""
_IGNORED = re.compile(f"[{_IGNORABLE}]")
_WITHOUT_USE = re.compile(rf"(?<![^\x00-\x7f])[{_IGNORABLE}]+|[{''.join(JOINERS)}\u034f\u115f\u1160\u3164\uffa0]+$")
"""Scripts and emoji need invisible marks between their characters; at the start, at the end and after ASCII none do."""
_EMPTY_CELL = "\u2800"  # Braille's blank, which is no blank to Unicode
_TYPED_ALIKE = str.maketrans(
    # Apostrophes, of which telephones and editors type the curved one; dashes that are none to Unicode; dotless i.
    "`\u00b4\u02b9\u02bb\u02bc\u02c8\u02ca\u02cb\u055a\u05f3\u07f4\u2018\u2019\u201b\u2032\u2035\ua78c"
    "\u02d7\u2043\u2212"
    "\u0131",
    "'" * 17 + "---" + "i",
)
_LOOK_ALIKE = str.maketrans(
    # The Cyrillic and Greek letters of which one case looks like a Latin letter.
    "\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0455\u0456\u0458\u0501\u051b\u051d"
    "\u03b1\u03b2\u03b5\u03b6\u03b7\u03b9\u03ba\u03bc\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7",
    "abekmhopctyxsijdqw" + "abezhikmnoptyx",
)
"""For the reserved words alone: people whose names look the same in two scripts are not one person."""
_RESERVED = frozenset({UNKNOWN.casefold(), NO_FACE.casefold()})


class InvalidName(FacerecError):
    """The name of a person or of a collection is invalid; the text says why."""


def valid_identity(name: str, *, exact: bool = False) -> str:
    """Return a person's name cleaned, as it is stored and answered.

    It is stripped and in Unicode's composed form (NFC), because macOS decomposes file names. Every blank is a space,
    and without `exact` several are one. Raises `InvalidName` for an empty name, more than 128 characters, line breaks,
    control characters and marks of direction, and the two words that an answer uses for no person.
    """
    if len(name) > _MAX_WRITTEN:
        raise InvalidName(f"a name has {MAX_IDENTITY_LENGTH} characters at most; this one has {len(name)}")
    identity = unicodedata.normalize("NFC", name).strip()
    if not all(is_text(c) or c in JOINERS for c in identity):
        raise InvalidName(f"the name {identity!r} holds control or invisible characters")
    identity = "".join(" " if _is_blank(c) else c for c in identity)
    identity = unicodedata.normalize("NFC", _WITHOUT_USE.sub("", identity).strip())
    if not exact:
        identity = " ".join(identity.split())
    key = identity_key(identity)
    if not key:
        raise InvalidName("a person needs a name")
    if len(identity) > MAX_IDENTITY_LENGTH:
        raise InvalidName(f"a name has {MAX_IDENTITY_LENGTH} characters at most; this one has {len(identity)}")
    if key.replace(" ", "").translate(_LOOK_ALIKE) in _RESERVED:
        raise InvalidName(f"{identity!r} stands for no person in an answer; choose another name")
    return identity


def identity_key(name: str, *, exact: bool = False) -> str:
    """Return the form in which names are compared; two names with one key are one person. It takes any text.

    What cannot be seen is left out, and all blanks and normal forms are one. Without `exact` so are several blanks and
    one, upper and lower case (ß and SS, and all four Turkish i, too), fullwidth and other compatible letters (NFKC),
    the dashes, the apostrophes, and dots at the end or none.
    """
    seen = "".join(" " if _is_blank(c) else c for c in name if is_text(c) or c.isspace())
    seen = unicodedata.normalize("NFC", _IGNORED.sub("", seen)).strip()
    if exact:
        return seen
    # Unicode's compatibility caseless match, definition D146, and `_TYPED_ALIKE`.
    folded = unicodedata.normalize("NFD", seen)
    for _ in range(2):
        folded = unicodedata.normalize("NFKD", folded.casefold().translate(_TYPED_ALIKE))
    folded = unicodedata.normalize("NFC", re.sub("i\u0307+", "i", folded))
    folded = "".join("-" if unicodedata.category(c) == "Pd" else c for c in folded)
    return " ".join(_IGNORED.sub("", folded).rstrip(". ").split())


def search_key(text: str) -> str:
    """Return the form in which names are searched and sorted: `identity_key` without accents. It takes any text."""
    decomposed = unicodedata.normalize("NFKD", identity_key(text))
    return "".join(c for c in decomposed if not unicodedata.combining(c))


def same_person(one: str, other: str, *, exact: bool = False) -> bool:
    """Whether two names are one person."""
    return identity_key(one, exact=exact) == identity_key(other, exact=exact)


def valid_collection(name: str) -> str:
    """Return the name of a collection unchanged; raises `InvalidName`."""
    try:
        return TypeAdapter(CollectionName).validate_python(name)
    except ValidationError as exc:
        raise InvalidName(
            f"{name!r} is no name for a collection: 1 to 64 letters, digits, dots, underscores and hyphens, "
            "not dots alone"
        ) from exc


class KnownNames:
    """The names of a collection: the first spelling of a name is the one that is used."""

    def __init__(self, identities: Iterable[str]) -> None:
        self._spellings: defaultdict[str, list[str]] = defaultdict(list)
        self.add(sorted(set(identities)))

    def spellings(self, name: str, *, exact: bool = False) -> list[str]:
        """Return the known spellings of a name, in order; galleries of earlier versions can have several."""
        known = self._spellings.get(identity_key(name), [])
        return [spelling for spelling in known if same_person(spelling, name, exact=exact)]

    def closest(self, name: str) -> str | None:
        """Return the known name that a wrong one resembles most, if one is close."""
        close = difflib.get_close_matches(identity_key(name), self._spellings, n=1)
        return self._spellings[close[0]][0] if close else None

    def spelling(self, name: str, *, exact: bool = False) -> str:
        """Return the known spelling of a name, or an unknown name cleaned; raises `InvalidName`."""
        identity = valid_identity(name, exact=exact)
        known = self.spellings(identity, exact=exact)
        return identity if identity in known or not known else known[0]

    def adopt(self, name: str, *, exact: bool = False) -> str:
        """Return the known spelling of a name; an unknown name is cleaned and known from now on.

        Raises `InvalidName`.
        """
        identity = self.spelling(name, exact=exact)
        self.add([identity])
        return identity

    def add(self, identities: Iterable[str]) -> None:
        """Know these names, too."""
        for identity in filter(None, identities):
            known = self._spellings[identity_key(identity)]
            if identity not in known:
                known.append(identity)


def _is_blank(character: str) -> bool:
    return character.isspace() or character == _EMPTY_CELL
