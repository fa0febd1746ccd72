"""The gallery index of several blocks: exact, changed in place, and saved."""

import json
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.index import vectors
from model.index.snapshot import (
    SnapshotHeader,
    SnapshotUnusable,
    Spool,
    open_snapshot,
    read_header,
    read_template_ids,
    write,
)
from model.index.vectors import (
    LARGEST_DIMENSION,
    Codes,
    Int8Vectors,
    NumpyProducts,
    OpenVinoProducts,
    Queries,
    RowsDamaged,
    quantise,
)
from model.matching import GalleryIndex

SIZE = 32
BLOCK = 64


@pytest.fixture(scope="module", params=[NumpyProducts, OpenVinoProducts])
def kernel(request: pytest.FixtureRequest) -> type:
    """Each kernel that is exact on this CPU; a gallery uses no other."""
    kernel: type = request.param
    codes = Codes.of(directions(BLOCK))
    try:
        kernel(codes.codes, codes.scales)
    except ArithmeticError as exc:
        pytest.skip(str(exc))
    return kernel


@pytest.fixture
def fast() -> "object":
    """The kernel without OpenVINO, whose models take some time to compile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "fastest", NumpyProducts)
        yield


def directions(count: int, seed: int = 0, size: int = SIZE) -> NDArray[np.float32]:
    """Return random unit vectors, float32 (count, size)."""
    found = np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def gallery(embeddings: NDArray[np.float32], people: int = 50) -> GalleryIndex:
    """An index of small blocks, its templates t0, t1, … belonging to the people in turn."""
    count = len(embeddings)
    return GalleryIndex(
        embeddings, [f"p{row % people}" for row in range(count)], [f"t{row}" for row in range(count)], block_rows=BLOCK
    )


def plain(
    rows: dict[str, tuple[str, NDArray[np.float32]]], query: NDArray[np.float32], limit: int
) -> list[tuple[str, str]]:
    """The definition: each identity with its best template as float16, the best first, the earlier of equals."""
    best: dict[str, tuple[float, str]] = {}
    for template_id, (identity, embedding) in rows.items():
        kept = embedding.astype(np.float16).astype(np.float64)
        cosine = float(np.vecdot(kept, query.astype(np.float64)))
        if identity not in best or cosine > best[identity][0]:
            best[identity] = cosine, template_id
    order = {template_id: number for number, template_id in enumerate(rows)}
    ranked = sorted(best.items(), key=lambda item: (-item[1][0], order[item[1][1]]))[:limit]
    return [(identity, template_id) for identity, (_, template_id) in ranked]


def found(index: GalleryIndex, queries: NDArray[np.float32], limit: int) -> list[list[tuple[str, str]]]:
    """What the index finds, without similarities."""
    return [[(match.identity, match.template_id) for match in matches] for matches in index.search(queries, limit)]


def test_products_are_exact(kernel: type) -> None:
    """For one query and for many."""
    codes, scales = quantise(directions(300, size=512))
    queries, _ = quantise(directions(9, 1, size=512))
    expected = queries.astype(np.int64) @ codes.T.astype(np.int64)
    ones = np.ones_like(scales)
    for count in (1, 2, 9):
        assert np.array_equal(kernel(codes, ones)(queries[:count].astype(np.float32)), expected[:count])


@given(seed=st.integers(0, 10_000), spread=st.sampled_from([0.01, 1.0, 30.0]))
@settings(max_examples=25)
def test_score_error_is_within_its_bound(seed: int, spread: float) -> None:
    """For even and for spiky vectors."""
    rows, queries = (
        rows * np.exp(spread * np.abs(rows)) / np.linalg.norm(rows * np.exp(spread * np.abs(rows)), axis=1)[:, None]
        for rows in (directions(200, seed), directions(5, seed + 1))
    )
    rows, queries = rows.astype(np.float32), queries.astype(np.float32)
    prepared = Queries.of(queries)
    exact = queries.astype(np.float64) @ rows.T.astype(np.float64)
    for kind in (vectors.Float32Vectors(rows), Int8Vectors(Codes.of(rows), vectors.Float32Vectors(rows))):
        assert (np.abs(kind.scores(prepared) - exact) <= kind.errors(prepared)[:, None]).all()


def test_score_bound_is_small() -> None:
    """Compared with the distance from a match to a stranger."""
    rows = directions(1000, size=512)
    encoded = Int8Vectors(Codes.of(rows), vectors.Float32Vectors(rows))
    assert encoded.errors(Queries.of(directions(8, 1, size=512))).max() < 0.025


def test_search_over_blocks_is_exact(kernel: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """For any limit, with either kernel."""
    monkeypatch.setattr(vectors, "fastest", kernel)
    embeddings, queries = directions(5 * BLOCK + 7), directions(6, 1)
    embeddings[100] = embeddings[3] = embeddings[200]  # equals, in three blocks
    queries[0] = embeddings[3]
    index = gallery(embeddings)
    assert len(index.blocks) == 6
    rows = {f"t{row}": (f"p{row % 50}", embedding) for row, embedding in enumerate(embeddings)}
    for limit in (1, 2, 5, 49, 80):
        assert found(index, queries, limit) == [plain(rows, query, limit) for query in queries]


@pytest.mark.parametrize(("additions", "left"), [([60], 0), ([10, 6], 0), ([20, 60], 0), ([20, 15, 15], 30), ([70], 6)])
def test_many_templates_added_at_once_are_encoded(additions: list[int], left: int, fast: None) -> None:
    """The first quarter of a block too; fewer wait for a full block."""
    index = gallery(directions(0))
    for number, count in enumerate(additions):
        names = [f"{number} {row}" for row in range(count)]
        index.add(directions(count, number), names, names)
    assert len(index) == sum(additions)
    assert len(index.blocks[-1]) == left


def test_templates_too_long_for_codes_are_compared_in_float32(fast: None) -> None:
    """Templates too long for codes are compared in float32."""
    size = LARGEST_DIMENSION + 1
    embeddings, queries = directions(2 * BLOCK + 9, size=size), directions(2, 1, size=size)
    index = gallery(embeddings[: BLOCK + 5])
    names = [f"t{row}" for row in range(BLOCK + 5, len(embeddings))]
    index.add(embeddings[BLOCK + 5 :], [f"p{row % 50}" for row in range(BLOCK + 5, len(embeddings))], names)
    rows = {f"t{row}": (f"p{row % 50}", embedding) for row, embedding in enumerate(embeddings)}
    assert found(index, queries, 5) == [plain(rows, query, 5) for query in queries]


def test_search_result_does_not_depend_on_other_queries(fast: None) -> None:
    """To the last bit."""
    index, queries = gallery(directions(200)), directions(7, 1)
    assert index.search(queries, 5) == [index.search(query[None], 5)[0] for query in queries]


def test_search_with_one_person_and_a_thousand_templates(fast: None) -> None:
    """A limit that cannot be reached takes time, not results."""
    embeddings, queries = directions(1000), directions(2, 1)
    rows = {f"t{row}": ("p0", embedding) for row, embedding in enumerate(embeddings)}
    assert found(gallery(embeddings, people=1), queries, 5) == [plain(rows, query, 5) for query in queries]


@given(
    steps=st.lists(
        st.tuples(st.booleans(), st.integers(0, 400), st.integers(1, 90), st.integers(0, 9)), min_size=1, max_size=8
    )
)
@settings(max_examples=40, deadline=None)
def test_changes_in_place_equal_a_new_index(steps: list[tuple[bool, int, int, int]]) -> None:
    """Additions, replacements and removals in any order, across blocks and their rewriting."""
    embeddings, queries = directions(500), directions(3, 1)
    index, rows = gallery(embeddings[:0]), dict[str, tuple[str, NDArray[np.float32]]]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "fastest", NumpyProducts)
        for adds, first, count, people in steps:
            numbers = range(first, first + count)
            names = [f"t{number}" for number in numbers]
            removed = [name for name in names if rows.pop(name, None) is not None]
            if adds:
                identities = [f"p{number % (people + 1)}" for number in numbers]
                index.add(embeddings[first : first + count], identities, names)
                rows |= {name: (who, embeddings[n]) for name, who, n in zip(names, identities, numbers, strict=True)}
            else:
                assert index.remove(names) == len(removed)
            assert len(index) == len(rows)
            assert index.identities == len({who for who, _ in rows.values()})
            for limit in (1, 5):
                assert found(index, queries, limit) == [plain(rows, query, limit) for query in queries]


def test_name_is_forgotten_with_its_last_template(fast: None) -> None:
    """Also where the block stays; a template that is replaced under another name counts."""
    index = gallery(directions(3 * BLOCK), people=2 * BLOCK)
    assert "p0" in index.names
    index.remove(["t0"])
    assert "p0" in index.names  # it has another photo
    index.remove([f"t{2 * BLOCK}"])
    assert "p0" not in index.names
    index.add(directions(1, seed=7), ["someone else"], ["t1"])
    index.add(directions(1, seed=8), ["someone else"], [f"t{2 * BLOCK + 1}"])
    assert "p1" not in index.names
    ((match,),) = index.search(directions(3 * BLOCK)[2:3])
    assert match.identity == "p2"
    index.add(directions(1, seed=9), ["p0"], ["new"])
    ((match,),) = index.search(directions(1, seed=9))
    assert match.identity == "p0"


def test_removed_row_of_the_last_block_is_forgotten_at_once(fast: None) -> None:
    """It is not encoded, so to copy the others is cheap."""
    rows = directions(10)
    index = gallery(rows)
    index.remove(["t3"])
    (block,) = index.blocks
    kept = block.vectors.take(np.arange(len(block)))
    assert not (kept == rows[3]).all(axis=1).any()
    assert "t3" not in block.template_ids
    assert [matches[0].template_id for matches in index.search(np.delete(rows, 3, 0))] == [
        f"t{row}" for row in range(10) if row != 3
    ]


def test_snapshot_has_the_names_of_people_with_templates_only(tmp_path: Path, fast: None) -> None:
    """And finds everyone else as before."""
    rows = directions(3 * BLOCK)
    index = gallery(rows, people=3 * BLOCK)
    index.remove(["t0", "t70", f"t{3 * BLOCK - 1}"])
    write(index, tmp_path / "s", "key", 1, {"kept": "with it"})
    opened, header = open_snapshot(tmp_path / "s", "key")
    assert opened.identities == len(opened.names) == 3 * BLOCK - 3
    content = (tmp_path / "s").read_bytes()
    assert b'"p70"' not in content
    assert rows[70].tobytes() not in content
    assert [found[0].identity for found in opened.search(rows[[1, 71, 100]])] == ["p1", "p71", "p100"]
    assert read_header(tmp_path / "s") == header == SnapshotHeader("key", 1, {"kept": "with it"})
    assert len(read_template_ids(tmp_path / "s")) == 3 * BLOCK - 3


def altered(path: Path, change: Callable[[dict[str, Any], bytearray], object]) -> None:
    """Change a snapshot's table of contents or sections, with right checksums."""
    content = bytearray(path.read_bytes())
    trailer = struct.Struct("<8sQII")
    magic, length, _, _ = trailer.unpack(content[-trailer.size :])
    table = json.loads(content[-trailer.size - length : -trailer.size])
    body = content[: -trailer.size - length]
    change(table, body)
    packed = json.dumps(table).encode()
    path.write_bytes(body + packed + trailer.pack(magic, len(packed), zlib.crc32(packed), 0))


def section(table: list[int], body: bytearray, value: bytes) -> None:
    """Replace a section by another one, which is appended."""
    table[:] = [len(body), len(value), zlib.crc32(value)]
    body += value


@pytest.mark.parametrize(
    "change",
    [
        lambda table, _: table.pop("names"),
        lambda table, _: table.pop("version"),
        lambda table, _: table.update(version="seven"),
        lambda table, _: table.update(blocks=[]),
        lambda table, _: table.update(blocks=7),
        lambda table, _: table.update(dimension=16),
        lambda table, body: section(table["names"], body, b'["only one"]'),
        lambda table, body: section(table["names"], body, b"7"),
        lambda table, body: section(table["names"], body, json.dumps(list(range(50))).encode()),
        lambda table, _: table["blocks"][0].update(largest_error=None),
        lambda table, body: section(table["template_ids"], body, b'["only one"]'),
        lambda table, body: section(table["template_ids"], body, b"{"),
        lambda table, body: section(table["blocks"][-1]["owners"], body, np.full(8, -1, "<i4").tobytes()),
        lambda table, body: section(table["blocks"][-1]["rows"], body, bytes(8 * 4 * SIZE)),
        lambda table, body: section(table["blocks"][-1]["rows"], body, np.full(8 * SIZE, np.nan, "<f4").tobytes()),
    ],
)
def test_snapshot_whose_parts_do_not_fit_is_unusable(
    tmp_path: Path, fast: None, change: Callable[[dict[str, Any], bytearray], object]
) -> None:
    """Also with right checksums: a faulty writer made it."""
    write(gallery(directions(BLOCK + 8)), tmp_path / "s", "key", 1)
    altered(tmp_path / "s", change)
    with pytest.raises(SnapshotUnusable):
        open_snapshot(tmp_path / "s", "key")


def test_removals_release_memory(fast: None) -> None:
    """A block is rewritten when half of it is removed."""
    index = gallery(directions(10 * BLOCK))
    index.remove([f"t{row}" for row in range(9 * BLOCK)])
    assert len(index) == BLOCK
    assert sum(map(len, index.blocks)) == BLOCK


def test_template_that_is_not_normalised_is_refused() -> None:
    """Nothing is added."""
    index = gallery(directions(3))
    for wrong in (2 * directions(1), np.full((1, SIZE), np.nan, dtype=np.float32)):
        with pytest.raises(ValueError, match="not normalised"):
            index.add(wrong, ["x"], ["x"])
    with pytest.raises(ValueError, match="shape"):
        index.add(directions(1, size=7), ["x"], ["x"])
    assert len(index) == 3


def test_identity_counts_while_it_has_a_template(fast: None, tmp_path: Path) -> None:
    """Through removals, moves to another person, and a snapshot."""
    embeddings = directions(4)
    index = GalleryIndex(embeddings, ["Ada", "Ada", "Bea", "Cem"], ["a1", "a2", "b", "c"])
    assert index.identities == 3
    index.remove(["a1", "a1", "nothing"])
    assert index.identities == 3
    index.remove(["a2"])
    assert index.identities == 2
    index.add(embeddings[:2], ["Bea", "Bea"], ["c", "b2"])
    assert index.identities == 1
    write(index, tmp_path / "s", "key", 1)
    opened = open_snapshot(tmp_path / "s", "key")[0]
    assert opened.identities == 1
    opened.add(embeddings[:1], ["Ada"], ["a1"])
    assert opened.identities == 2
    opened.remove(["a1", "b", "b2", "c"])
    assert (opened.identities, len(opened)) == (0, 0)


def test_search_runs_during_changes(fast: None) -> None:
    """A person enrolled throughout is always found."""
    embeddings = directions(400)
    index = gallery(embeddings[:BLOCK], people=BLOCK)
    stop = threading.Event()
    missed: list[str] = []

    def search() -> None:
        while not stop.is_set():
            missed.extend(
                matches[0].template_id
                for row, matches in enumerate(index.search(embeddings[:4]))
                if matches[0].template_id != f"t{row}"
            )

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        names = [f"n{row}" for row in range(len(embeddings) - BLOCK)]
        index.add(embeddings[BLOCK:], names, names)
        assert index.remove(names) == len(names)
    stop.set()
    for thread in threads:
        thread.join()
    assert missed == []


def test_snapshot_keeps_the_gallery(kernel: type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without removed templates; it can be changed and saved again."""
    monkeypatch.setattr(vectors, "fastest", kernel)
    queries, path = directions(5, 1), tmp_path / "new" / "gallery"
    index = gallery(directions(3 * BLOCK + 9))
    index.remove(["t3", "t70", "t198"])
    write(index, path, "key", 7)
    for _ in range(2):
        opened, header = open_snapshot(path, "key")
        assert (header.version, len(opened), opened.identities) == (7, len(index), index.identities)
        assert opened.search(queries, 5) == index.search(queries, 5)
        for each in (index, opened):
            each.remove(["t5"])
            each.add(queries[:1], ["new"], ["n"])
        assert opened.search(queries, 5) == index.search(queries, 5)
        write(opened, path, "key", 7)
    assert [file.name for file in path.parent.iterdir()] == ["gallery"]


@pytest.mark.parametrize("count", [0, 1, BLOCK])
def test_small_gallery_has_a_snapshot(count: int, tmp_path: Path, fast: None) -> None:
    """No template, one, and exactly a block."""
    write(gallery(directions(count)), tmp_path / "s", "key", 1)
    assert len(open_snapshot(tmp_path / "s", "key")[0]) == count


def test_snapshot_damage_is_detected(tmp_path: Path, fast: None) -> None:
    """At opening, or by the search that reads it."""
    path, embeddings = tmp_path / "s", directions(2 * BLOCK + 9)
    write(gallery(embeddings), path, "key", 1)
    good, expected = path.read_bytes(), gallery(embeddings).search(embeddings, 3)
    refused = 0
    for place in np.linspace(0, len(good) - 9, 60).astype(int).tolist():
        path.write_bytes(good[:place] + bytes(255 - byte for byte in good[place : place + 4]) + good[place + 4 :])
        try:
            assert open_snapshot(path, "key")[0].search(embeddings, 3) == expected  # the bytes between sections
        except (SnapshotUnusable, RowsDamaged):
            refused += 1
    assert refused > 10


def test_other_file_is_no_snapshot(tmp_path: Path, fast: None) -> None:
    """A missing, an empty, a short and a foreign file."""
    path = tmp_path / "s"
    write(gallery(directions(2 * BLOCK)), path, "key", 1)
    good = path.read_bytes()
    with pytest.raises(SnapshotUnusable, match="other"):
        open_snapshot(path, "other")
    for content in (b"", b"x", good[:-1], good[:1000], good[4096:]):
        path.write_bytes(content)
        with pytest.raises(SnapshotUnusable):
            open_snapshot(path, "key")
    with pytest.raises(SnapshotUnusable):
        open_snapshot(tmp_path / "missing", "key")


def test_damaged_rows_are_not_saved_again(tmp_path: Path, fast: None) -> None:
    """A rewritten block's embeddings are no longer compared with the old codes."""
    path = tmp_path / "s"
    write(gallery(directions(BLOCK)), path, "key", 1)
    opened, _ = open_snapshot(path, "key")
    with path.open("r+b") as file:
        file.write(bytes(4 * SIZE * BLOCK))
    with pytest.raises(RowsDamaged):
        write(opened, tmp_path / "copy", "key", 2)
    assert not opened.damaged
    with pytest.raises(RowsDamaged):
        opened.remove([f"t{row}" for row in range(BLOCK - 9)])
    assert opened.damaged
    assert len(opened) == 9
    assert [file.name for file in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize("count", [0, 5, 15, 16, BLOCK, BLOCK + 15, BLOCK + 16, 5 * BLOCK + 3])
def test_index_of_pieces_equals_the_whole(count: int, tmp_path: Path, fast: None) -> None:
    """The same blocks, names and results, with embeddings in memory or on disk."""
    embeddings, queries = directions(count), directions(4, 1)
    whole, spool = gallery(embeddings), Spool(tmp_path / "new")
    for keep in (vectors.Float32Vectors, spool.put_aside):
        pieces = (
            (embeddings[rows], [f"p{row % 50}" for row in rows], [f"t{row}" for row in rows])
            for rows in (range(start, min(count, start + 13)) for start in range(0, count + 13, 13))
        )
        index = GalleryIndex.of_pieces(pieces, keep, block_rows=BLOCK)
        assert [len(block) for block in index.blocks] == [len(block) for block in whole.blocks]
        assert list(index.names) == list(whole.names)
        assert index.identities == whole.identities == min(count, 50)
        for each in (index, whole):
            assert each.search(queries, 5) == whole.search(queries, 5)
        index.add(queries[:1], ["new"], ["n"])
        assert found(index, queries[:1], 1) == [[("new", "n")]]
        assert index.remove([f"t{row}" for row in range(count)]) == count
        assert index.identities == 1
    assert list(tmp_path.glob("new/*")) == []


def test_index_of_wrong_pieces_is_refused() -> None:
    """Index of wrong pieces is refused."""
    right = directions(2), ["x", "y"], ["1", "2"]
    for wrong in ((directions(1, size=7), ["z"], ["3"]), (2 * directions(1), ["z"], ["3"]), (directions(1), [], ["3"])):
        with pytest.raises(ValueError, match=r"shape|not normalised|identities"):
            GalleryIndex.of_pieces([right, wrong])


def test_spool_falls_back_to_memory(tmp_path: Path) -> None:
    """A full disk costs memory, not the gallery."""
    (tmp_path / "file").write_text("no directory")
    rows = directions(3)
    assert np.array_equal(Spool(tmp_path / "file").put_aside(rows).take(np.arange(3)), rows)


def test_products_fall_back_to_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO may fail for one block, and not for the next."""

    def refuse(*_: object) -> None:
        raise RuntimeError("Exception from src/inference/src/cpp/core.cpp:112")

    monkeypatch.setattr(vectors, "_without_openvino", [])
    monkeypatch.setattr(vectors, "OpenVinoProducts", refuse)
    codes, scales = quantise(directions(9))
    assert isinstance(vectors.fastest(codes, scales), NumpyProducts)


def test_verdict_on_openvino_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling each block in vain takes a fifth of the time of building an index."""
    tried: list[object] = []

    def inexact(*_: object) -> None:
        tried.append(1)
        raise ArithmeticError("OpenVINO's 8-bit products are not exact on this CPU")

    monkeypatch.setattr(vectors, "_without_openvino", [])
    monkeypatch.setattr(vectors, "OpenVinoProducts", inexact)
    codes, scales = quantise(directions(9))
    assert [type(vectors.fastest(codes, scales)) for _ in range(3)] == [NumpyProducts] * 3
    assert len(tried) == 1


def test_search_marks_a_damaged_index(tmp_path: Path, fast: None) -> None:
    """Its owner then makes it again."""
    path = tmp_path / "s"
    write(gallery(directions(BLOCK)), path, "key", 1)
    opened, _ = open_snapshot(path, "key")
    with path.open("r+b") as file:
        file.write(bytes(4 * SIZE * BLOCK))
    assert not opened.damaged
    with pytest.raises(RowsDamaged):
        opened.search(directions(1, 1))
    assert opened.damaged
