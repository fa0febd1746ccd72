"""P-Net as the detector drives it: sheets of tiles in, the outputs of each tile's cells out."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.detection.packing import STRIDE, Placed, Sheet, Size, Tile, cut
from model.detection.pyramid import IntegralImage

Net = Callable[[NDArray[np.float32]], tuple[NDArray[np.float32], ...]]
Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]

TILE = (152, 264)  # the largest P-Net input: fits a cache, holds the first two scales of 250 by 250, bounds the memory


class ProposalNet(Protocol):
    """P-Net with the shapes of its inputs: it says how the scales of a picture are laid out."""

    def sheets(self, sizes: Sequence[Size]) -> Sequence[Sheet]:
        """Return inputs that together show every cell of scales with these heights and widths once."""

    def canvas(self, sheet: Sheet) -> NDArray[np.float32]:
        """Return the image to fill before `run`, float32 (3, height, width); between its tiles it may hold anything."""

    def run(self, sheet: Sheet) -> Outputs:
        """Return regression (4, rows, columns) and probability (rows, columns); they hold until the next call."""


class TileByTile:
    """A `ProposalNet` of a network that takes any shape for the same price: every tile is an input of its own."""

    def __init__(self, net: Net) -> None:
        self._net = net
        self._image: NDArray[np.float32] = np.empty((1, 3, 0, 0), dtype=np.float32)

    def sheets(self, sizes: Sequence[Size]) -> Sequence[Sheet]:
        """Return a sheet for each tile, whose pooling at the edges is then the network's own."""
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


def proposed(net: ProposalNet, integral: IntegralImage, sizes: Sequence[Size]) -> Iterator[tuple[Tile, Outputs]]:
    """Yield each tile of the picture at these heights and widths with its cells' regression and probability."""
    for sheet in net.sheets(sizes):
        canvas = net.canvas(sheet)
        for placed in sheet.tiles:
            tile, top, left = placed.tile, placed.top, placed.left
            rows, columns = (
                slice(STRIDE * first, STRIDE * first + side)
                for first, side in ((tile.row, tile.height), (tile.column, tile.width))
            )
            integral.scaled(
                *sizes[tile.scale],
                (rows, columns),
                out=canvas[:, top : top + tile.height, left : left + tile.width],
            )
        regression, probability = net.run(sheet)
        for placed in sheet.tiles:
            (rows_, columns_), top, left = placed.tile.cells, placed.top // STRIDE, placed.left // STRIDE
            part = np.s_[top : top + rows_, left : left + columns_]
            yield placed.tile, (regression[:, *part], probability[part])
