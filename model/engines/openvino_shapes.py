"""MTCNN's networks on OpenVINO with fixed shapes: it prepares a graph again whenever an input has another shape.

That preparation takes longer than these networks themselves. So each of a few shapes has a compiled graph of its own,
made when it is first asked for, with inputs and outputs that stay in place.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from model.detection.packing import Placed, Sheet, Size, pack
from model.detection.proposals import TILE, Outputs
from model.engines.openvino_rewriting import add_limit, channels_last, join_heads

SHAPES = ((40, 88), (64, 112), (96, 136), (128, 160), (152, 208), TILE)  # of P-Net's images; the first fits 64 by 64
BATCHES = (1, 2, 4, 8, 16, 32, 64)
NEARLY_FULL = 0.75  # of a batch: from here on the larger one costs less than two
_KEEP, _DROP = np.float32(1e6), np.float32(-1e6)  # far beyond what the first layer gives for pixels in [-1, 1]


class _Compiled:
    """A graph of fixed shape with its arrays, those of images with their channels last."""

    def __init__(self, core: openvino.Core, model: openvino.Model, config: Mapping[str, Any]) -> None:
        compiled = core.compile_model(model, "CPU", dict(config))
        self._request = compiled.create_infer_request()
        self.inputs: list[NDArray[np.float32]] = [
            self._request.get_input_tensor(index).data for index in range(len(compiled.inputs))
        ]
        for array in self.inputs:
            array[:] = 0
        self.outputs: list[NDArray[np.float32]] = [
            self._request.get_output_tensor(index).data for index in range(len(compiled.outputs))
        ]

    def run(self) -> None:
        self._request.infer(share_outputs=True)


class _Proposing(_Compiled):
    """P-Net for one shape of sheets."""

    def __init__(self, core: openvino.Core, path: Path, size: Size, config: Mapping[str, Any]) -> None:
        model = core.read_model(path)
        model.reshape({model.input(0): [1, 3, *size]})
        join_heads(model, "regression", "probability")
        add_limit(model, "MaxPool")
        super().__init__(core, channels_last(model), config)
        self._limit = self.inputs[1][0]
        self._limit[:] = _KEEP
        self._limited: Sequence[Placed] = ()

    def limit(self, tiles: Sequence[Placed]) -> None:
        """Keep what lies beyond these tiles' odd sides, where they have any, out of the pooling."""
        self._draw(self._limited, _KEEP)
        self._draw(tiles, _DROP)
        self._limited = tiles

    def _draw(self, tiles: Sequence[Placed], value: np.float32) -> None:
        for placed in tiles:
            # The first layer's outputs begin one pixel further in: the first beyond the tile is its side less 2.
            bottom, right = placed.top + placed.tile.height, placed.left + placed.tile.width
            if placed.tile.height % 2:
                self._limit[bottom - 2, placed.left : right] = value
            if placed.tile.width % 2:
                self._limit[placed.top : bottom, right - 2] = value


class PackedProposals:
    """A `ProposalNet` that packs all scales of a photo into images of a few shapes."""

    def __init__(self, path: Path, core: openvino.Core, config: Mapping[str, Any]) -> None:
        self._path = path
        self._core = core
        self._config = config
        self._graphs: dict[Size, _Proposing] = {}

    def sheets(self, sizes: Sequence[Size]) -> Sequence[Sheet]:
        """Return packed sheets."""
        return pack(tuple(sizes), SHAPES)

    def canvas(self, sheet: Sheet) -> NDArray[np.float32]:
        """Return the image of the sheet's shape, with what was last on it between the tiles."""
        image: NDArray[np.float32] = self._graph(sheet.size).inputs[0][0].transpose(2, 0, 1)
        return image

    def run(self, sheet: Sheet) -> Outputs:
        """Run the network, on tiles with odd sides with what lies beyond them kept out of its pooling."""
        graph = self._graph(sheet.size)
        graph.limit(sheet.tiles)
        graph.run()
        joined = graph.outputs[0][0]
        # The softmax of two values is the logistic function of their difference.
        probability = 1 / (1 + np.exp(-joined[..., 4]))
        return joined[..., :4].transpose(2, 0, 1), probability

    def prepare(self) -> Iterator[None]:
        """Compile what `run` would compile when it is first asked for, one graph a step."""
        for size in SHAPES:
            self._graph(size)
            yield

    def _graph(self, size: Size) -> _Proposing:
        if size not in self._graphs:
            self._graphs[size] = _Proposing(self._core, self._path, size, self._config)
        return self._graphs[size]


class BatchedCrops:
    """A network of crops as a `Net` that takes any number of them, up to `largest` at a time and in few sizes."""

    def __init__(self, path: Path, core: openvino.Core, config: Mapping[str, Any], largest: int = BATCHES[-1]) -> None:
        self._path = path
        self._core = core
        self._config = config
        self._batches = [batch for batch in BATCHES if batch <= largest]
        self._graphs: dict[int, _Compiled] = {}

    def __call__(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Run the network."""
        results: list[list[NDArray[np.float32]]] = []
        first = 0
        while first < len(images):
            compiled = self._graph(self._batch(len(images) - first))
            part = images[first : first + len(compiled.inputs[0])]
            compiled.inputs[0][: len(part)] = part.transpose(0, 2, 3, 1)
            compiled.run()
            results.append([output[: len(part)].copy() for output in compiled.outputs])
            first += len(part)
        return tuple(np.concatenate(parts) for parts in zip(*results, strict=True))

    def prepare(self) -> Iterator[None]:
        """Compile what a call would compile when it is first asked for, one graph a step."""
        for batch in self._batches:
            self._graph(batch)
            yield

    def _batch(self, count: int) -> int:
        """Return the batch for the next of `count` crops: the largest that they fill, or nearly fill."""
        return max(batch for batch in self._batches if count >= NEARLY_FULL * batch)

    def _graph(self, batch: int) -> _Compiled:
        if batch not in self._graphs:
            model = self._core.read_model(self._path)
            model.reshape([batch, *(int(side) for side in list(model.input(0).partial_shape.get_min_shape())[1:])])
            self._graphs[batch] = _Compiled(self._core, channels_last(model), self._config)
        return self._graphs[batch]
