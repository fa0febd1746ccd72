"""Choosing an engine."""

import sys
from typing import cast

import pytest

from model.artefact import Artefact
from model.engines import EngineUnavailable, open_engine

UNREAD = cast("Artefact", None)  # no engine reads it


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without any engine."""
    for package in ("openvino", "onnxruntime", "facenet_pytorch"):
        monkeypatch.setitem(sys.modules, package, None)
    for name in ("openvino", "onnxruntime", "torch"):
        monkeypatch.delitem(sys.modules, f"model.engines.{name}", raising=False)


def test_unknown_engine_is_refused_with_the_choice() -> None:
    """Unknown engine is refused with the choice."""
    with pytest.raises(EngineUnavailable, match="choose auto, openvino, onnxruntime, torch"):
        open_engine(UNREAD, "tensorflow")


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("auto", r"openvino or onnxruntime.*\.\[worker\]"),
        ("onnxruntime", r"onnxruntime.*\.\[worker\]"),
        ("torch", r"torch.*\.\[export\]"),
    ],
)
def test_missing_engine_says_what_to_install(name: str, words: str) -> None:
    """An engine whose package is absent names the extra that brings it."""
    with pytest.raises(EngineUnavailable, match=words):
        open_engine(UNREAD, name)
