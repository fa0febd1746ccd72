"""The demonstration's samples, and the comparison of its replies."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from facerec.errors import ConfigurationError, FacerecError
from facerec.local.demo import Samples, compare
from facerec.local.progress import Progress


@pytest.fixture
def printed() -> io.StringIO:
    """The output of the demonstration."""
    return io.StringIO()


@pytest.fixture
def progress(printed: io.StringIO) -> Progress:
    """Progress that prints there."""
    return Progress(Console(file=printed))


def test_table_gives_the_reply_of_each_probe(tmp_path: Path) -> None:
    """Outcomes become the sentences of the upload contract, in the order of the table."""
    (tmp_path / "gallery").mkdir()
    (tmp_path / "expected.csv").write_text("file,outcome,name\nb.jpg,match,Jane Doe\na.jpg,unknown,\nc.jpg,no_face,\n")
    assert list(Samples(tmp_path).expected().items()) == [
        (tmp_path / "probes" / "b.jpg", "b.jpg: face detected - Jane Doe"),
        (tmp_path / "probes" / "a.jpg", "a.jpg: face not recognized"),
        (tmp_path / "probes" / "c.jpg", "c.jpg: no face detected"),
    ]


def test_folder_without_samples_is_rejected(tmp_path: Path) -> None:
    """The error says where to run the command."""
    with pytest.raises(ConfigurationError, match="--examples"):
        Samples(tmp_path).expected()


def test_right_replies_print_nothing(printed: io.StringIO, progress: Progress) -> None:
    """And raise nothing."""
    compare([("a.jpg: no face detected", "a.jpg: no face detected")], progress)
    assert printed.getvalue() == ""


def test_wrong_replies_are_printed_and_raise(printed: io.StringIO, progress: Progress) -> None:
    """Brackets in a name are printed as they are."""
    replies = [("a.jpg: no face detected", "a.jpg: face detected - [b]J"), ("same", "same")]
    with pytest.raises(FacerecError, match="1 of 2 replies differ"):
        compare(replies, progress)
    assert printed.getvalue() == "- a.jpg: face detected - [b]J\n+ a.jpg: no face detected\n"
