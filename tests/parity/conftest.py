"""The reference engine, and the engines held against it.

Without torch and facenet-pytorch (`make install-reference`) every test fails. Only bf16 skips, on a CPU without it.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from model.artefact import Artefact
from model.engines import Engine, EngineUnavailable, open_engine
from tests.parity.pictures import PICTURES, Expected


@pytest.fixture(scope="session")
def artefact(classic_dir: Path) -> Artefact:
    """The pack `classic`, which is what facenet-pytorch publishes."""
    return Artefact.load(classic_dir)


@pytest.fixture(scope="session")
def reference(artefact: Artefact) -> Engine:
    """facenet-pytorch as published."""
    return open_engine(artefact, "torch", threads=2)


@pytest.fixture(scope="session")
def examined(reference: Engine) -> Callable[[str], Expected]:
    """Look up a picture by name; the reference sees each once."""

    @cache
    def examine(name: str) -> Expected:
        image = np.asarray(PICTURES[name]().convert("RGB"))
        faces = reference.detect(image)
        crops = [reference.cropper.crop(image, face) for face in faces]
        embeddings = reference.embed(np.stack(crops)).vectors if crops else np.empty((0, 512), dtype=np.float32)
        return Expected(image, faces, crops, embeddings)

    return examine


@pytest.fixture(params=sorted(PICTURES))
def expected(request: pytest.FixtureRequest, examined: Callable[[str], Expected]) -> Expected:
    """Each picture in turn."""
    return examined(request.param)


@pytest.fixture(scope="session", params=["openvino fp32", "openvino bf16", "onnxruntime fp32"])
def engine(request: pytest.FixtureRequest, artefact: Artefact) -> Engine:
    """Each engine, in each of its precisions, that is held against the reference."""
    name, precision = request.param.split()
    try:
        return open_engine(artefact, name, precision=precision)
    except EngineUnavailable as exc:
        if precision == "bf16":
            pytest.skip(str(exc))
        raise
