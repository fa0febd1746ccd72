"""The committed detection graphs are the published networks."""

import numpy as np
import pytest
import torch
from facenet_pytorch.models.mtcnn import ONet, PNet, RNet

from model.engines.onnxruntime import load_graph
from model.export import detection_graphs
from model.packs.catalogue import OWN_GRAPHS


def test_committed_detection_graphs_are_what_the_exporter_writes() -> None:
    """Byte for byte."""
    for name, content in detection_graphs().items():
        assert (OWN_GRAPHS / name).read_bytes() == content, f"{name}: run `python -m model.export`"


@pytest.mark.parametrize(
    ("name", "network", "shape"),
    [
        ("pnet", PNet, (1, 3, 12, 12)),
        ("pnet", PNet, (2, 3, 13, 30)),
        ("pnet", PNet, (1, 3, 100, 77)),
        ("pnet", PNet, (1, 3, 101, 78)),
        ("rnet", RNet, (1, 3, 24, 24)),
        ("rnet", RNet, (7, 3, 24, 24)),
        ("onet", ONet, (1, 3, 48, 48)),
        ("onet", ONet, (5, 3, 48, 48)),
    ],
)
def test_detection_graph_gives_the_outputs_of_the_published_network(
    name: str, network: type[torch.nn.Module], shape: tuple[int, ...]
) -> None:
    """In the same order, at even and odd sizes and any batch."""
    images = np.random.default_rng(7).uniform(-1, 1, shape).astype(np.float32)
    with torch.inference_mode():
        published = network().eval()(torch.from_numpy(images))
    ours = load_graph(OWN_GRAPHS / f"{name}.onnx")(images)
    assert len(ours) == len(published)
    for output, known in zip(ours, published, strict=True):
        assert output == pytest.approx(known.numpy(), abs=1e-5)
