"""Names of people: valid ones, and when two of them are one person."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from facerec.gallery.names import (
    MAX_IDENTITY_LENGTH,
    InvalidName,
    KnownNames,
    identity_key,
    same_person,
    valid_identity,
)

UNSEEN = [
    "\u200d",  # zero-width joiner
    "\u200c",  # zero-width non-joiner
    "\u200b",  # zero-width space
    "\u2060",  # word joiner
    "\ufeff",  # byte order mark
    "\u00ad",  # soft hyphen
    "\ufe0e",  # variation selector 15
    "\ufe0f",  # variation selector 16
    "\U000e0100",  # variation selector 17
    "\u180b",  # Mongolian free variation selector 1
    "\u200e",  # left-to-right mark
    "\u202e",  # right-to-left override
    "\u2066",  # left-to-right isolate
    "\u061c",  # Arabic letter mark
    "\u034f",  # combining grapheme joiner
    "\u115f",  # Hangul choseong filler
    "\u1160",  # Hangul jungseong filler
    "\u3164",  # Hangul filler
    "\uffa0",  # halfwidth Hangul filler
    "\u17b4",  # Khmer inherent vowel
    "\U000e0041",  # tag letter
    "\U000e0001",  # language tag
    "\U0001d173",  # musical begin beam
]
BLANKS = ["\u00a0", "\u2002", "\u2007", "\u202f", "\u205f", "\u3000", "\u2800"]


@pytest.mark.parametrize(
    "name",
    [
        "Ada Lovelace",
        "George_W_Bush",
        "O'Neil-Smith, Jr.",
        "José",
        "李小龙",
        "क्\u200dष",
        "\N{WOMAN}\u200d\N{ROCKET}",
        "a/b",
    ],
)
def test_names_in_any_script_are_valid(name: str) -> None:
    """Names in any script are valid."""
    assert valid_identity(f"  {name} ") == name


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "needs a name"),
        (" \t ", "needs a name"),
        ("\u200d", "needs a name"),
        ("a" * (MAX_IDENTITY_LENGTH + 1), "128 characters"),
        ("Ada\nLovelace", "control"),
        ("Ada\u2028Lovelace", "control"),
        ("Ada\u202eecalevoL", "control"),
        ("Ada\udcff", "control"),
        ("Unknown", "stands for no person"),
        (" no-face ", "stands for no person"),
        ("\uff35\uff2e\uff2b\uff2e\uff2f\uff37\uff2e", "stands for no person"),
        ("No\u2011Face.", "stands for no person"),
        ("unknown...", "stands for no person"),
        ("U nknown", "stands for no person"),
        ("Unkn\u043ewn", "stands for no person"),
        ("N\u03bf-F\u0430\u0441\u0435", "stands for no person"),
        ("...", "needs a name"),
        ("\u3164\u2800", "needs a name"),
    ],
)
@pytest.mark.parametrize("exact", [False, True])
def test_names_that_break_an_answer_are_refused(name: str, says: str, *, exact: bool) -> None:
    """With a sentence that says why."""
    with pytest.raises(InvalidName, match=says):
        valid_identity(name, exact=exact)


def test_text_of_a_megabyte_is_refused_before_it_is_cleaned() -> None:
    """Cleaning it would keep a process busy for minutes."""
    for text in ("\u00e9" + "\u200c" * 1_000_000 + "x", "Ada" + "\u200d" * 1_000_000):
        with pytest.raises(InvalidName, match="128 characters at most"):
            valid_identity(text)


@pytest.mark.parametrize("mark", UNSEEN + BLANKS)
@pytest.mark.parametrize("word", ["Unknown", "No-Face"])
@pytest.mark.parametrize("exact", [False, True])
def test_reserved_words_are_refused_with_invisible_characters(word: str, mark: str, *, exact: bool) -> None:
    """At the start, in the middle and at the end."""
    for name in (mark + word, word[:3] + mark + word[3:], word + mark, f"{word} {mark}"):
        with pytest.raises(InvalidName):
            valid_identity(name, exact=exact)


@pytest.mark.parametrize("mark", UNSEEN)
def test_invisible_characters_make_no_second_person(mark: str) -> None:
    """Not even with exact names; a name is shown without those that have no use."""
    for name in (f"{mark}Ada Lovelace", f"Ada{mark} Lovelace", f"Ada Love{mark}lace", f"Ada Lovelace{mark}"):
        assert same_person(name, "Ada Lovelace")
        assert same_person(name, "Ada Lovelace", exact=True)
        try:
            assert valid_identity(name) == "Ada Lovelace"
        except InvalidName as exc:
            assert "invisible" in str(exc)  # noqa: PT017 - some are refused, as they hide or reverse text


@pytest.mark.parametrize("blank", BLANKS)
def test_blanks_of_every_kind_are_spaces(blank: str) -> None:
    """They look alike, so exact names do not tell them apart."""
    assert valid_identity(f"{blank}Ada{blank}Lovelace{blank}", exact=True) == "Ada Lovelace"
    assert same_person(f"Ada{blank}Lovelace", "Ada Lovelace", exact=True)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ada Lovelace", "ada LOVELACE"),
        ("Ada Lovelace", "Ada   Lovelace"),
        ("Weiß", "WEISS"),
        ("İrem Iş\u0131k", "irem \u0131ş\u0131k"),
        ("İrem Iş\u0131k", "IREM IŞIK"),
        ("Σωκράτης", "ΣΩΚΡΆΤΗΣ"),
        ("Ada", "\uff21\uff44\uff41"),
        ("\ufb01ona", "Fiona"),
        ("Jean-Luc", "Jean\u2011Luc"),
        ("Jean-Luc", "Jean\u2212Luc"),
        ("O'Brien", "O\u2019Brien"),
        ("O'Brien", "o\u00b4brien"),
        ("Hawai\u02bbi", "Hawai`i"),
        ("Íris", "\u0131\u0301ris"),
        ("Sammy Davis Jr.", "Sammy Davis Jr"),
        ("Ada", "Ada . ."),
    ],
)
def test_typing_makes_no_second_person_unless_asked(one: str, other: str) -> None:
    """Case, doubled blanks, compatible letters, dashes, apostrophes and dots at the end."""
    assert same_person(one, other)
    assert not same_person(one, other, exact=True)
    known = KnownNames([one])
    assert known.adopt(other) == one
    assert known.adopt(other, exact=True) == valid_identity(other, exact=True)
    assert set(known.spellings(one)) == {one, valid_identity(other, exact=True)}
    assert known.spellings(one, exact=True) == [one]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ada", "Ade"),
        ("José", "Jose"),
        ("Ada Lovelace", "AdaLovelace"),
        ("李", "季"),
        ("A. B. Smith", "AB Smith"),
        ("O'Brien", "OBrien"),
        ("Сания", "Саһия"),
        ("Boba", "Вова"),
        ("\u04ae\u04af", "\u0423\u0443"),
        ("Илья", "Илия"),
    ],
)
def test_different_letters_are_different_people(one: str, other: str) -> None:
    """Accents, too."""
    assert not same_person(one, other)


def test_names_of_earlier_versions_are_found_by_any_spelling() -> None:
    """Also those that are no valid names today; a spelling that is written exactly is kept."""
    known = KnownNames(["Unknown\u200d", "Ada\u200d", "Ada"])
    assert known.spellings("unknown") == ["Unknown\u200d"]
    assert known.spellings("ada") == ["Ada", "Ada\u200d"]
    assert known.adopt("Ada") == "Ada"


@given(name=st.text(min_size=1), exact=st.booleans())
def test_valid_identity_is_idempotent(name: str, *, exact: bool) -> None:
    """The same name is the same person, and cleaning does not change who it is."""
    try:
        identity = valid_identity(name, exact=exact)
    except InvalidName:
        return
    assert valid_identity(identity, exact=exact) == identity
    assert valid_identity(unicodedata.normalize("NFD", identity), exact=exact) == identity
    assert same_person(identity, name, exact=exact)


@given(st.text())
@example("i\u0307\u0307")
@example("\u0131\u0301")
def test_identity_key_is_idempotent(name: str) -> None:
    """For any text; people of one exact key have one key."""
    key = identity_key(name)
    assert identity_key(key) == key
    assert identity_key(identity_key(name, exact=True)) == key
