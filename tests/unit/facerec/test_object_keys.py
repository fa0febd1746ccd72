"""The keys of inputs and outputs: safe, short, and never mixed up."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facerec.object_keys import MAX_NAME_BYTES, base_name, input_key, output_key, request_prefix, safe_name

REQUEST = UUID("11111111-2222-4333-8444-555555555555")


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("image_01.jpg", "image_01.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\photos\\me.png", "me.png"),
        ("a\nb\r\n\0c.jpg", "abc.jpg"),
        ("ünïcode 写真.jpg", "ünïcode 写真.jpg"),
        ("👩‍👧.jpg", "👩‍👧.jpg"),
        ("", "upload"),
        ("..", "upload"),
        ("photos/", "upload"),
        ("  ", "upload"),
        ("\ud800.jpg", ".jpg"),
        ("x" * 300 + ".jpg", "x" * 300 + ".jpg"),
    ],
)
def test_a_file_name_is_its_last_part_without_control_characters(sent: str, name: str) -> None:
    """What the reply echoes is what the client sent, less what could do harm."""
    assert base_name(sent) == name


def test_a_long_name_is_shortened_and_keeps_its_extension() -> None:
    """A key may have 1 024 bytes, and 300 emoji have more."""
    name = safe_name("😀" * 300 + ".jpeg")
    assert name.endswith("😀.jpeg")
    assert MAX_NAME_BYTES - 4 < len(name.encode()) <= MAX_NAME_BYTES


def test_a_name_without_an_extension_is_shortened_too() -> None:
    """A dot far from the end begins no extension."""
    assert len(safe_name("a." + "é" * 300).encode()) <= MAX_NAME_BYTES


@pytest.mark.parametrize("character", ["\ufffe", "\uffff", "\n", "\u202e"])
def test_what_no_document_can_carry_is_dropped(character: str) -> None:
    """S3 could not list such a key; a change of writing direction would make a name lie."""
    assert base_name(f"a{character}b.jpg") == "ab.jpg"


def test_keys_are_named_by_the_request() -> None:
    """Two uploads of one name never mix."""
    assert input_key(REQUEST, "dir/image_01.jpg") == f"{REQUEST}/image_01.jpg"
    assert output_key(REQUEST, "image_01.jpg") == f"{REQUEST}/image_01.json"


@given(st.text(st.characters(codec="utf-8"), max_size=400))
def test_every_name_makes_a_key_that_s3_takes(sent: str) -> None:
    """Whatever the client sends, the key is short, has one level below the request, and no character to avoid."""
    for key in (input_key(REQUEST, sent), output_key(REQUEST, sent)):
        assert key.startswith(request_prefix(REQUEST))
        name = key.removeprefix(request_prefix(REQUEST))
        assert name
        assert name not in {".", ".."}
        assert not set(name) & set('/\\{}^%`[]"<>~#|?*:&$@=;+,\n\r\0')
        assert len(key.encode()) <= 255


@given(st.text(max_size=100))
def test_a_cleaned_name_is_clean(sent: str) -> None:
    """Cleaning twice changes nothing, and the name can always travel as UTF-8."""
    name = base_name(sent)
    assert base_name(name) == name
    assert name.encode().decode() == name
