"""P-Net over the scales of a picture: the scales are cut into tiles, and the tiles packed side by side into inputs.

P-Net has no padding: a cell's output depends only on the 12 by 12 pixels under it. A scale may therefore be cut into
tiles that overlap by what a cell sees beyond its stride. Tiles may stand side by side if they begin at even pixels, as
P-Net pools pairs, and if the cells across their borders are ignored. Only the last cell of an odd side looks at a
pooling window that is half filled; a `ProposalNet` that packs tiles keeps its other half out.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.detection import Net
from model.detection.integral_image import IntegralImage

CELL = 12  # pixels that one P-Net output looks at
STRIDE = 2  # pixels between neighbouring P-Net outputs

Size = tuple[int, int]
"""Height and width in pixels, or rows and columns."""
Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Regression (4, rows, columns) and probability (rows, columns)."""

TILE: Size = (152, 264)
"""The largest input: it fits a cache, holds the first two scales of 250 by 250, and bounds the memory."""


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
        """Its P-Net outputs, rows and columns; each output of a scale is in exactly one tile."""
        return cells(self.height), cells(self.width)


@dataclass(frozen=True, slots=True)
class Placed:
    """A tile with its upper left pixel in the input; both even."""

    tile: Tile
    top: int
    left: int


@dataclass(frozen=True, slots=True)
class Sheet:
    """One P-Net input of `size` pixels and the tiles on it."""

    size: Size
    tiles: tuple[Placed, ...]


class ProposalNet(Protocol):
    """P-Net with the shapes of its inputs: it decides how the scales of a picture are laid out."""

    def sheets(self, sizes: Sequence[Size]) -> Sequence[Sheet]:
        """Return inputs that together show every cell of scales with these heights and widths once."""

    def canvas(self, sheet: Sheet) -> NDArray[np.float32]:
        """Return the image to fill before `run`, float32 (3, height, width); its content between tiles is ignored."""

    def run(self, sheet: Sheet) -> Outputs:
        """Return the outputs; they are valid until the next call."""


class TileByTile:
    """A `ProposalNet` of a network that takes any shape at the same price: every tile is an input of its own."""

    def __init__(self, net: Net) -> None:
        self._net = net
        self._image: NDArray[np.float32] = np.empty((1, 3, 0, 0), dtype=np.float32)

    def sheets(self, sizes: Sequence[Size]) -> Sequence[Sheet]:
        """Return one sheet a tile; the network's own pooling handles the odd sides."""
        return [Sheet((tile.height, tile.width), (Placed(tile, 0, 0),)) for tile in cut(tuple(sizes), TILE)]

    def canvas(self, sheet: Sheet) -> NDArray[np.float32]:
        """Return an image of the tile's size."""
        self._image = np.empty((1, *sheet.size, 3), dtype=np.float32).transpose(0, 3, 1, 2)
        image: NDArray[np.float32] = self._image[0]
        return image

    def run(self, sheet: Sheet) -> Outputs:  # noqa: ARG002 - the image has the sheet's size
        """Run the network."""
        regression, probability = self._net(self._image)
        return regression[0], probability[0, 1]


def propose(net: ProposalNet, integral: IntegralImage, sizes: Sequence[Size]) -> Iterator[tuple[Tile, Outputs]]:
    """Yield each tile of the picture at these heights and widths with the outputs of its cells."""
    for sheet in net.sheets(sizes):
        canvas = net.canvas(sheet)
        for placed in sheet.tiles:
            tile, top, left = placed.tile, placed.top, placed.left
            rows = slice(STRIDE * tile.row, STRIDE * tile.row + tile.height)
            columns = slice(STRIDE * tile.column, STRIDE * tile.column + tile.width)
            out = canvas[:, top : top + tile.height, left : left + tile.width]
            integral.scaled(*sizes[tile.scale], (rows, columns), out=out)
        regression, probability = net.run(sheet)
        for placed in sheet.tiles:
            (height, width), top, left = placed.tile.cells, placed.top // STRIDE, placed.left // STRIDE
            part = np.s_[top : top + height, left : left + width]
            yield placed.tile, (regression[:, *part], probability[part])


def cells(pixels: int) -> int:
    """Return the P-Net outputs along a side; the last may see only 11 pixels, as pooling rounds up."""
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
    """Return sheets that hold all the tiles of these scales.

    `shapes` are the allowed sizes, even, in ascending order. All sheets have the largest shape except the last, which
    has the smallest that holds the remaining tiles.
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
    """Yield sheets of one shape, large tiles placed first; a tile that is too large adds an empty sheet."""
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
    """A sheet that is being filled: the rest of a free rectangle beside a tile is split in two."""

    def __init__(self, shape: Size) -> None:
        self.placed: list[Placed] = []
        self.free = [(0, 0, *shape)]

    def take(self, tile: Tile) -> bool:
        """Place a tile into the smallest free rectangle that holds it; returns False if none does."""
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
