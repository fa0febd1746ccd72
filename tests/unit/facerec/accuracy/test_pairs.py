"""Lists of pairs as people write them, and as LFW has them."""

from pathlib import Path

import pytest

from facerec.accuracy.pairs import InvalidPairs, Pair, read_pairs

LFW = (
    "2\t1\nAda_Lovelace\t1\t4\nGrace_Hopper\t2\tAlan_Turing\t10\nAda_Lovelace\t2\t3\nAda_Lovelace\t1\tAlan_Turing\t1\n"
)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """The path of the list."""
    return tmp_path / "pairs"


def test_csv_columns_may_have_any_order(written: Path) -> None:
    """Names may hold commas and blanks; a byte order mark and Windows' line ends are no part of them."""
    written.write_bytes(b'\xef\xbb\xbfsame,left,right,note\r\n1,a/1.jpg,"b, c/2.jpg",x\r\nno,a/1.jpg,d.jpg,\r\n')
    assert read_pairs(written) == [Pair("a/1.jpg", "b, c/2.jpg", same=True), Pair("a/1.jpg", "d.jpg", same=False)]


def test_csv_may_have_folds(written: Path) -> None:
    """For LFW's protocol on one's own pairs."""
    written.write_text("left,right,same,fold\na,b,1,0\na,c,0,1\n")
    assert [pair.fold for pair in read_pairs(written)] == [0, 1]


def test_lfw_view_2_has_folds(written: Path) -> None:
    """Folds follow each other, the pairs of one person first in each."""
    written.write_text(LFW)
    assert read_pairs(written) == [
        Pair("Ada_Lovelace/Ada_Lovelace_0001.jpg", "Ada_Lovelace/Ada_Lovelace_0004.jpg", same=True, fold=0),
        Pair("Grace_Hopper/Grace_Hopper_0002.jpg", "Alan_Turing/Alan_Turing_0010.jpg", same=False, fold=0),
        Pair("Ada_Lovelace/Ada_Lovelace_0002.jpg", "Ada_Lovelace/Ada_Lovelace_0003.jpg", same=True, fold=1),
        Pair("Ada_Lovelace/Ada_Lovelace_0001.jpg", "Alan_Turing/Alan_Turing_0001.jpg", same=False, fold=1),
    ]


def test_lfw_view_1_has_no_folds(written: Path) -> None:
    """Its first line has only the number of pairs of each kind."""
    written.write_text("1\nAda 1 2\nAda 1 Grace 1\n")
    assert [(pair.same, pair.fold) for pair in read_pairs(written)] == [(True, None), (False, None)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must name the columns"),
        ("left,right\na,b\n", r"\['same'\] missing"),
        ("left,right,same\n", "holds no pairs"),
        ("left,right,same\na,b,1\na,b,maybe\n", "line 3: same is 'maybe'"),
        ("left,right,same\na,b\n", "line 2: left, right and same"),
        ("left,right,same\na,a,1\n", "line 2 compares a photo with itself"),
        ("left,right,same,fold\na,b,1,one\n", "line 2: fold is 'one'"),
        ("left,right,same,fold\na,b,1,1\na,c,0,\n", "some pairs have a fold and some have none"),
        ("2 1\nAda 1 2\n", "announces 4 pairs, and 1 follow"),
        ("1\nAda 1 2\nAda one Grace 1\n", "line 3 is neither"),
        ("1 2 3\n", "line 1 must have the number of folds"),
        ("10 0\n", "line 1 must have the number of folds"),
    ],
)
def test_unreadable_line_is_named(written: Path, text: str, says: str) -> None:
    """In one sentence."""
    written.write_text(text)
    with pytest.raises(InvalidPairs, match=says):
        read_pairs(written)


def test_binary_file_is_refused(written: Path) -> None:
    """A photo given in place of the list."""
    written.write_bytes(b"\xff\xd8\xff\xe0" * 10)
    with pytest.raises(InvalidPairs, match="cannot be read as text"):
        read_pairs(written)
