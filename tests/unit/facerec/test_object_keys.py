"""The keys of inputs and outputs."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facerec.object_keys import MAX_NAME_BYTES, base_name, copy_key, input_key, output_key, request_prefix, safe_name

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
        ("x" * 60_000 + ".jpg", "x" * 251 + ".jpg"),
        ("x" * 60_000, "x" * 255),
        (" " * 60_000 + ".jpg", " " * 251 + ".jpg"),
        (" " * 60_000 + "x", "upload"),
    ],
)
def test_base_name_is_the_last_part_without_control_characters(sent: str, name: str) -> None:
    """The reply contains it."""
    assert base_name(sent) == name


def test_long_name_keeps_its_extension() -> None:
    """A key may have 1 024 bytes; 300 emoji have more."""
    name = safe_name("😀" * 300 + ".jpeg")
    assert name.endswith("😀.jpeg")
    assert MAX_NAME_BYTES - 4 < len(name.encode()) <= MAX_NAME_BYTES


def test_long_name_without_an_extension_is_shortened() -> None:
    """A dot far from the end begins no extension."""
    assert len(safe_name("a." + "é" * 300).encode()) <= MAX_NAME_BYTES


@pytest.mark.parametrize("character", ["\ufffe", "\uffff", "\n", "\u202e"])
def test_characters_outside_of_text_are_dropped(character: str) -> None:
    """S3 could not list such a key, and a change of writing direction would falsify a name."""
    assert base_name(f"a{character}b.jpg") == "ab.jpg"


def test_keys_begin_with_the_request_id() -> None:
    """Two uploads of one name never mix."""
    assert input_key(REQUEST, "dir/image_01.jpg") == f"{REQUEST}/image_01.jpg"
    assert output_key(REQUEST, "image_01.jpg") == f"{REQUEST}/image_01.json"


@pytest.mark.parametrize("sent", ["..jpg", "...jpg", "....x"])
def test_copy_key_is_no_step_in_a_path(sent: str) -> None:
    """S3 refuses `..` as a key."""
    assert copy_key(sent) == safe_name(sent)


@given(st.text(st.characters(codec="utf-8"), max_size=400))
def test_every_name_gives_a_valid_key(sent: str) -> None:
    """The key is short, has one level below the request id, and no character to avoid."""
    for key in (input_key(REQUEST, sent), output_key(REQUEST, sent)):
        assert key.startswith(request_prefix(REQUEST))
        name = key.removeprefix(request_prefix(REQUEST))
        assert name
        assert name not in {".", ".."}
        assert not set(name) & set('/\\{}^%`[]"<>~#|?*:&$@=;+,\n\r\0')
        assert len(key.encode()) <= 255


@given(st.text(max_size=100) | st.text(" .ax\u200d", min_size=240, max_size=300))
def test_cleaning_a_name_is_idempotent(sent: str) -> None:
    """The name can always be encoded as UTF-8."""
    name = base_name(sent)
    assert base_name(name) == name
    assert name.encode().decode() == name
