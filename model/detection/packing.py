"""Where the scales of a picture lie in the images that P-Net is given: cut into tiles, and tiles side by side.

P-Net has no padding: a cell's output depends on the 12 by 12 pixels under it alone, so that a scale may be cut into
tiles which overlap by what a cell sees beyond its stride, and tiles may stand side by side, as long as they begin at
even pixels (its pooling works on pairs) and the cells across their borders are passed over. Only the last cell of an
odd side looks at a pooling window that is half filled; whoever packs has to keep the other half out.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

CELL = 12  # pixels that one P-Net output looks at
STRIDE = 2  # pixels between neighbouring P-Net outputs

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of a scale: `row` and `column` are its first cell, `height` and `width` its pixels, 11 or more."""

    scale: int
    row: int
    column: int
    height: int
    width: int

    @property
    def cells(self) -> Size:
        """Its P-Net outputs, rows and columns; none lies in two tiles of a scale."""
        return cells(self.height), cells(self.width)


@dataclass(frozen=True, slots=True)
class Placed:
    """A tile with its upper left pixel in the image; both even."""

    tile: Tile
    top: int
    left: int


@dataclass(frozen=True, slots=True)
class Sheet:
    """One P-Net input of `size` pixels, height and width, and the tiles on it."""

    size: Size
    tiles: tuple[Placed, ...]


def cells(pixels: int) -> int:
    """Return the P-Net outputs along a side; the last may see 11 pixels only, as pooling rounds up."""
    return max(0, (pixels - CELL + 1) // STRIDE + 1)


@lru_cache(maxsize=64)
def cut(sizes: Sequence[Size], limit: Size) -> tuple[Tile, ...]:
    """Return the tiles of scales with these heights and widths, none larger than the limit, which is even."""
    return tuple(
        Tile(scale, row, column, height, width)
        for scale, (total_height, total_width) in enumerate(sizes)
        for row, height in _parts(total_height, limit[0])
        for column, width in _parts(total_width, limit[1])
    )


@lru_cache(maxsize=64)
def pack(sizes: Sequence[Size], shapes: Sequence[Size]) -> tuple[Sheet, ...]:
    """Return sheets that hold all the tiles, of the given shapes only: even, from small to large.

    All sheets have the last shape but one, which has the smallest that holds what is left over.
    """
    largest = shapes[-1]
    sheets = list(_sheets(cut(sizes, largest), largest))
    if sheets:
        rest = [placed.tile for placed in sheets[-1].tiles]
        fitting = (fitted for shape in shapes if len(fitted := list(_sheets(rest, shape))) == 1)
        sheets[-1:] = next(fitting)
    return tuple(sheets)


def _parts(pixels: int, limit: int) -> Iterator[tuple[int, int]]:
    step = cells(limit)
    for first in range(0, cells(pixels), step):
        yield first, min(limit, pixels - STRIDE * first)


def _sheets(tiles: Iterable[Tile], shape: Size) -> Iterator[Sheet]:
    """Yield sheets of one shape, the large tiles placed first; a tile too large for it makes one sheet too many."""
    rooms: list[_Room] = []
    for tile in sorted(tiles, key=lambda tile: tile.height * tile.width, reverse=True):
        if not any(room.take(tile) for room in rooms):
            room = _Room(shape)
            if not room.take(tile):
                yield Sheet(shape, ())
            rooms.append(room)
            if not room.free:
                yield Sheet(shape, tuple(room.placed))
                rooms.pop()
    for room in rooms:
        yield Sheet(shape, tuple(room.placed))


class _Room:
    """A sheet that is being filled: what a tile leaves of a free rectangle is split in two, beside and below."""

    def __init__(self, shape: Size) -> None:
        self.placed: list[Placed] = []
        self.free = [(0, 0, *shape)]

    def take(self, tile: Tile) -> bool:
        """Place a tile into the smallest rectangle that holds it; False where none does."""
        height, width = tile.height + tile.height % 2, tile.width + tile.width % 2
        fitting = [free for free in self.free if free[2] >= height and free[3] >= width]
        if not fitting:
            return False
        chosen = min(fitting, key=lambda free: free[2] * free[3])
        self.free.remove(chosen)
        top, left, free_height, free_width = chosen
        below, beside = free_height - height, free_width - width
        if below > beside:  # the longer cut leaves the larger piece whole
            pieces = (top + height, left, below, free_width), (top, left + width, height, beside)
        else:
            pieces = (top + height, left, below, width), (top, left + width, free_height, beside)
        self.free += [piece for piece in pieces if min(piece[2:]) >= CELL]
        self.placed.append(Placed(tile, top, left))
        return True
