"""Choosing the embedder's numbers."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from facerec.engine import loading
from facerec.engine.child import EngineSpec
from model.artefact import Artefact
from model.engines import EngineUnavailable, choose_precision, cpu_flags, open_engine, require_fp32

OFFERED = ["FP32", "BF16", "INT8"]
NATIVE = {"avx512_bf16"}
UNREAD = cast("Artefact", None)  # no engine reads it


@pytest.mark.parametrize(
    ("flags", "chosen"),
    [({"avx512_bf16"}, "bf16"), ({"amx_bf16", "avx2"}, "bf16"), ({"avx512f"}, "fp32"), ((), "fp32")],
)
def test_auto_chooses_bf16_only_if_the_cpu_has_it(flags: set[str], chosen: str) -> None:
    """OpenVINO also offers it when it emulates it; the load of the machine does not matter."""
    assert choose_precision("auto", OFFERED, flags) == chosen


def test_demanded_precision_is_used_if_the_runtime_offers_it() -> None:
    """Auto does not choose bf16 if the runtime does not offer it."""
    assert choose_precision("auto", ["FP32"], NATIVE) == "fp32"
    assert choose_precision("fp32", OFFERED, NATIVE) == "fp32"
    assert choose_precision("bf16", OFFERED, ()) == "bf16"


def test_cpu_flags_are_those_of_the_first_core(tmp_path: Path) -> None:
    """There are none if the file cannot be read."""
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx512_bf16\n\nflags\t\t: fpu\n")
    assert cpu_flags(tmp_path / "cpuinfo") == {"fpu", "avx512_bf16"}
    assert cpu_flags(tmp_path / "none") == frozenset()


def test_bf16_is_refused_without_cpu_support() -> None:
    """No other precision is used instead."""
    with pytest.raises(EngineUnavailable, match="AMX or AVX512-BF16: choose the precision auto or fp32"):
        choose_precision("bf16", ["FP32", "INT8"], NATIVE)


def test_unknown_precision_error_lists_the_choices() -> None:
    """For example a misspelt one."""
    with pytest.raises(EngineUnavailable, match="choose auto, fp32 or bf16"):
        choose_precision("int8", OFFERED, NATIVE)


def test_fp32_engine_refuses_bf16() -> None:
    """The error names the engine and what to do."""
    require_fp32("auto", "torch")
    require_fp32("fp32", "torch")
    with pytest.raises(EngineUnavailable, match="torch computes in fp32 only, not in bf16"):
        require_fp32("bf16", "torch")


def test_auto_does_not_fall_back_to_an_engine_without_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without OpenVINO, ONNX Runtime refuses bf16 before it loads anything."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "model.engines.openvino", raising=False)
    with pytest.raises(EngineUnavailable, match="onnxruntime computes in fp32 only"):
        open_engine(UNREAD, "auto", precision="bf16")


def test_child_opens_the_engine_with_its_precision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The precision comes from the spec."""
    child_options = {}

    def refuse(*_: object, **options: object) -> None:
        child_options.update(options)
        raise EngineUnavailable("far enough")

    monkeypatch.setattr("model.engines.open_engine", refuse)
    monkeypatch.setattr(loading, "Artefact", SimpleNamespace(load=lambda _: None))
    spec = EngineSpec(tmp_path, "openvino", 50, tmp_path, precision="bf16")
    with pytest.raises(EngineUnavailable):
        loading.open_analyser(spec)
    assert child_options["precision"] == "bf16"
