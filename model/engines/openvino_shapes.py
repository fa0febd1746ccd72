"""MTCNN's networks on OpenVINO, compiled for a few fixed shapes.

OpenVINO prepares a graph again whenever its input has another shape, which takes longer than these networks
themselves. Each of a few shapes therefore has its own compiled graph, made at its first use, with arrays that stay in
place.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13

from model.detection.proposals import TILE, Outputs, Placed, Sheet, Size, pack

SHAPES = ((40, 88), (64, 112), (96, 136), (128, 160), (152, 208), TILE)
"""Heights and widths of P-Net's inputs, in ascending order; the first holds a picture of 64 by 64."""
BATCHES = (1, 2, 4, 8, 16, 32, 64)
NEARLY_FULL = 0.75  # the share of a batch from which on the larger batch costs less than two smaller ones
_KEEP, _DROP = np.float32(1e6), np.float32(-1e6)
"""Limits far beyond what the first layer gives for pixels in [-1, 1]."""
_IMAGE_RANK = 4


class PackedProposals:
    """A `ProposalNet` that packs all scales of a picture into inputs of a few shapes."""

    def __init__(self, path: Path, core: openvino.Core, config: Mapping[str, Any]) -> None:
        self._path = path
        self._core = core
        self._config = config
        self._graphs: dict[Size, _Proposing] = {}

    def sheets(self, sizes: Sequence[Size]) -> Sequence[Sheet]:
        """Return packed sheets."""
        return pack(tuple(sizes), SHAPES)

    def canvas(self, sheet: Sheet) -> NDArray[np.float32]:
        """Return the input of the sheet's shape; between the tiles it holds the previous picture."""
        image: NDArray[np.float32] = self._graph(sheet.size).inputs[0][0].transpose(2, 0, 1)
        return image

    def run(self, sheet: Sheet) -> Outputs:
        """Run the network; what lies beyond the odd sides of tiles is kept out of its pooling."""
        graph = self._graph(sheet.size)
        graph.limit(sheet.tiles)
        graph.run()
        regression, probability = graph.outputs
        return regression[0].transpose(2, 0, 1), probability[0, ..., 1]

    def prepare(self) -> Iterator[None]:
        """Compile the graph of every shape, one a step."""
        for size in SHAPES:
            self._graph(size)
            yield

    def _graph(self, size: Size) -> "_Proposing":
        if size not in self._graphs:
            self._graphs[size] = _Proposing(self._core, self._path, size, self._config)
        return self._graphs[size]


class BatchedCrops:
    """A network of crops as a `Net`: any number of them, at most `largest` at a time, in few batch sizes."""

    def __init__(self, path: Path, core: openvino.Core, config: Mapping[str, Any], largest: int = BATCHES[-1]) -> None:
        self._path = path
        self._core = core
        self._config = config
        self._batches = [batch for batch in BATCHES if batch <= largest]
        self._graphs: dict[int, _Compiled] = {}

    def __call__(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Run the network on crops (N, 3, S, S)."""
        results: list[list[NDArray[np.float32]]] = []
        first = 0
        while first < len(images):
            # The largest batch that the remaining crops fill, or nearly fill.
            batch = max(batch for batch in self._batches if len(images) - first >= NEARLY_FULL * batch)
            compiled = self._graph(batch)
            part = images[first : first + batch]
            compiled.inputs[0][: len(part)] = part.transpose(0, 2, 3, 1)
            compiled.run()
            results.append([output[: len(part)].copy() for output in compiled.outputs])
            first += len(part)
        return tuple(np.concatenate(parts) for parts in zip(*results, strict=True))

    def prepare(self) -> Iterator[None]:
        """Compile the graph of every batch size, one a step."""
        for batch in self._batches:
            self._graph(batch)
            yield

    def _graph(self, batch: int) -> "_Compiled":
        if batch not in self._graphs:
            model = self._core.read_model(self._path)
            model.reshape([batch, *(int(side) for side in list(model.input(0).partial_shape.get_min_shape())[1:])])
            self._graphs[batch] = _Compiled(self._core, _channels_last(model), self._config)
        return self._graphs[batch]


class _Compiled:
    """A graph of fixed shape with its input and output arrays; images have their channels last."""

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
        _add_limit(model, "MaxPool")
        super().__init__(core, _channels_last(model), config)
        self._limit = self.inputs[1][0]
        self._limit[:] = _KEEP
        self._limited: Sequence[Placed] = ()

    def limit(self, tiles: Sequence[Placed]) -> None:
        """Keep what lies beyond the odd sides of these tiles out of the pooling."""
        self._draw(self._limited, _KEEP)
        self._draw(tiles, _DROP)
        self._limited = tiles

    def _draw(self, tiles: Sequence[Placed], value: np.float32) -> None:
        for placed in tiles:
            # The first layer takes one pixel off each edge, so the first output beyond the tile is at its side less 2.
            bottom, right = placed.top + placed.tile.height, placed.left + placed.tile.width
            if placed.tile.height % 2:
                self._limit[bottom - 2, placed.left : right] = value
            if placed.tile.width % 2:
                self._limit[placed.top : bottom, right - 2] = value


def _channels_last(model: openvino.Model) -> openvino.Model:
    """Give every input and output image its channels last, as OpenVINO computes: nothing is reordered."""
    layouts = openvino.preprocess.PrePostProcessor(model)
    for side, ports in ((layouts.input, model.inputs), (layouts.output, model.outputs)):
        for index, port in enumerate(ports):
            if port.partial_shape.rank.get_length() == _IMAGE_RANK:
                side(index).model().set_layout(openvino.Layout("NCHW"))
                side(index).tensor().set_layout(openvino.Layout("NHWC"))
    return layouts.build()


def _add_limit(model: openvino.Model, before: str) -> None:
    """Add a second input: an upper limit for the input of the graph's only layer of the type `before`."""
    (layer,) = (node for node in model.get_ops() if node.get_type_name() == before)
    # In full size, because a limit without channels that is spread over them costs ten times as much.
    limit = opset13.parameter(layer.input_value(0).get_shape(), np.float32, name="limit")
    layer.input(0).replace_source_output(opset13.minimum(layer.input_value(0), limit).output(0))
    model.add_parameters([limit])
