"""MTCNN's networks on OpenVINO with fixed shapes: it prepares a graph anew whenever an input has another shape.

That preparation takes longer than these networks themselves. So each of a few shapes has a compiled graph of its own,
made when it is first asked for, with inputs and outputs that stay in place.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13

from model.packing import Sheet, Size, pack
from model.proposals import TILE, Net, Outputs

SHAPES = ((40, 88), (64, 112), (96, 136), (128, 160), (152, 208), TILE)  # of P-Net's images; the first fits 64 by 64
BATCHES = (1, 2, 4, 8, 16, 32, 64)
NEARLY_FULL = 0.75  # of a batch: from here on the larger one costs less than two
_KEEP, _DROP = np.float32(1e6), np.float32(-1e6)  # far beyond what the first layer gives for pixels in [-1, 1]


class _Compiled:
    """A graph of fixed shape with its arrays."""

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


class PackedProposals:
    """A `ProposalNet` that packs all scales of a photo into images of a few shapes."""

    def __init__(self, path: Path, core: openvino.Core, config: Mapping[str, Any]) -> None:
        self._path = path
        self._core = core
        self._config = config
        self._graphs: dict[tuple[Size, bool], _Compiled] = {}

    def sheets(self, sizes: Sequence[Size]) -> Sequence[Sheet]:
        """Return packed sheets."""
        return pack(tuple(sizes), SHAPES)

    def canvas(self, sheet: Sheet) -> NDArray[np.float32]:
        """Return the image of the sheet's shape, with what was last on it between the tiles."""
        image: NDArray[np.float32] = self._graph(sheet).inputs[0][0]
        return image

    def run(self, sheet: Sheet) -> Outputs:
        """Run the network, on tiles with odd sides with what lies beyond them kept out of its pooling."""
        graph = self._graph(sheet)
        if _halved(sheet):
            mask = graph.inputs[1][0, 0]
            mask[:] = _KEEP
            for placed in sheet.tiles:
                # The first layer's outputs begin one pixel further in: the first beyond the tile is its side less 2.
                bottom, right = placed.top + placed.tile.height, placed.left + placed.tile.width
                if placed.tile.height % 2:
                    mask[bottom - 2, placed.left : right] = _DROP
                if placed.tile.width % 2:
                    mask[placed.top : bottom, right - 2] = _DROP
        graph.run()
        regression, probability = graph.outputs
        return regression[0], probability[0, 1]

    def _graph(self, sheet: Sheet) -> _Compiled:
        key = sheet.size, _halved(sheet)
        if key not in self._graphs:
            model = self._core.read_model(self._path)
            height, width = sheet.size
            if _halved(sheet):
                _add_mask(model, height - 2, width - 2)
            model.reshape({model.input(0): [1, 3, height, width]})
            self._graphs[key] = _Compiled(self._core, model, self._config)
        return self._graphs[key]


def _halved(sheet: Sheet) -> bool:
    return any(placed.tile.height % 2 or placed.tile.width % 2 for placed in sheet.tiles)


def _add_mask(model: openvino.Model, height: int, width: int) -> None:
    """Give P-Net a second input, an upper limit for the outputs of its first layer, whose maxima are pooled."""
    (pool,) = (node for node in model.get_ops() if node.get_type_name() == "MaxPool")
    mask = opset13.parameter([1, 1, height, width], np.float32, name="mask")
    pool.input(0).replace_source_output(opset13.minimum(pool.input_value(0), mask).output(0))
    model.add_parameters([mask])


def load_batched(path: Path, core: openvino.Core, config: Mapping[str, Any]) -> Net:
    """Return a graph for crops as a callable that takes any number of them, in batches of a few sizes."""
    graphs: dict[int, _Compiled] = {}

    def graph(batch: int) -> _Compiled:
        if batch not in graphs:
            model = core.read_model(path)
            model.reshape([batch, *(int(side) for side in list(model.input(0).partial_shape.get_min_shape())[1:])])
            graphs[batch] = _Compiled(core, model, config)
        return graphs[batch]

    def run(images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        results: list[list[NDArray[np.float32]]] = []
        first = 0
        while first < len(images):
            compiled = graph(_batch(len(images) - first))
            part = images[first : first + len(compiled.inputs[0])]
            compiled.inputs[0][: len(part)] = part
            compiled.run()
            results.append([output[: len(part)].copy() for output in compiled.outputs])
            first += len(part)
        return tuple(np.concatenate(parts) for parts in zip(*results, strict=True))

    return run


def _batch(count: int) -> int:
    """Return the batch for the next of `count` crops: the largest that they fill, or nearly fill."""
    return max(batch for batch in BATCHES if count >= NEARLY_FULL * batch)
