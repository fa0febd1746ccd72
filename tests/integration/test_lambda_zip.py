"""What the build of the zip archive removes, replaces and writes; the build itself is `make lambda-zip`."""

import shutil
import subprocess
import sys
from pathlib import Path

import botocore
import pytest

from deploy.lambda_zip import build
from deploy.lambda_zip.hollow import NEVER_CALLED, hollow, needed
from deploy.lambda_zip.slim import SERVICES, slim
from tests.support.processes import CHECKOUT

needs_a_compiler = pytest.mark.skipif(
    shutil.which("cc") is None or shutil.which("readelf") is None, reason="needs cc and readelf"
)


def _write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_slimming_keeps_what_is_imported(tmp_path: Path) -> None:
    """The second copy of ONNX Runtime and the tests go; the extension and the modules stay."""
    kept = [
        _write(tmp_path / "onnxruntime/capi/onnxruntime_pybind11_state.cpython-312-x86_64-linux-gnu.so", "extension"),
        _write(tmp_path / "onnxruntime/__init__.py"),
        _write(tmp_path / "onnxruntime-1.31.1.dist-info/METADATA"),
    ]
    for name in ("capi/libonnxruntime.so.1.31.1", "tools/a.py", "transformers/b.py", "x/tests/c.py", "capi/d.pyi"):
        _write(tmp_path / "onnxruntime" / name, "twelve bytes")
    assert slim(tmp_path) == 5 * 12
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)


def test_slimming_refuses_a_package_that_has_changed(tmp_path: Path) -> None:
    """A pattern without a file would leave the archive silently larger."""
    _write(tmp_path / "onnxruntime/__init__.py")
    with pytest.raises(SystemExit, match=r"libonnxruntime\.so"):
        slim(tmp_path)


def test_slimmed_botocore_still_makes_the_clients_of_the_functions(tmp_path: Path) -> None:
    """In a region and at an endpoint, with the descriptions of four services."""
    package = Path(botocore.__file__).parent
    shutil.copytree(package, tmp_path / "botocore", ignore=shutil.ignore_patterns("__pycache__"))
    slim(tmp_path)
    assert {path.name for path in (tmp_path / "botocore/data").iterdir() if path.is_dir()} == SERVICES
    program = """
import botocore
from facerec.aws.clients import Clients
from facerec.settings import Settings
clients = Clients(Settings.load())
print(botocore.__file__, *(client.meta.endpoint_url for client in (clients.s3, clients.sqs, clients.dynamodb)))
"""
    environ = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "FACEREC_AWS__REGION": "eu-central-1"}
    environ["PYTHONPATH"] = f"{tmp_path}:{CHECKOUT}"
    made = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    location, *endpoints = made.stdout.split()
    assert location.startswith(str(tmp_path))
    assert endpoints == [
        "https://s3.eu-central-1.amazonaws.com",
        "https://sqs.eu-central-1.amazonaws.com",
        "https://dynamodb.eu-central-1.amazonaws.com",
    ]


@needs_a_compiler
def test_hollowed_libraries_load_and_what_they_needed_goes(tmp_path: Path) -> None:
    """The extension still works without them; a call of one ends the process."""
    libraries = tmp_path / "opencv.libs"
    libraries.mkdir()
    _compile(libraries / "libcodec.so", "int codec(void) { return 7; }")
    for prefix in NEVER_CALLED:
        name = prefix.strip("-")
        source = f"int codec(void); int {name}_call(void) {{ return codec(); }}"
        _compile(libraries / f"{prefix}1.so", source, "libcodec.so", versioned=name)
    calls = [f"{prefix.strip('-')}_call" for prefix in NEVER_CALLED]
    source = "".join(f"int {call}(void);" for call in calls)
    source += (
        f"int three(void) {{ return 3; }} int call(void) {{ return {' + '.join(f'{call}()' for call in calls)}; }}"
    )
    _compile(tmp_path / "cv2.so", source, *(f"{prefix}1.so" for prefix in NEVER_CALLED))
    assert _call(tmp_path / "cv2.so", "call") == (0, f"{7 * len(calls)}\n")

    changed = hollow(tmp_path, "opencv.libs", "cc")

    assert changed == [*(f"{prefix}1.so" for prefix in NEVER_CALLED), "libcodec.so"]
    assert needed(libraries / "libavcodec-1.so") == []
    assert _call(tmp_path / "cv2.so", "three") == (0, "3\n")
    status, printed = _call(tmp_path / "cv2.so", "call")
    assert status < 0
    assert printed == ""


def _compile(library: Path, source: str, *needs: str, versioned: str | None = None) -> None:
    folder = next(folder for folder in (library.parent, library.parent / "opencv.libs") if folder.suffix == ".libs")
    code = _write(folder.parent / "source.c", source)
    command = ["cc", "-w", "-shared", "-fPIC", f"-Wl,-soname,{library.name}", f"-Wl,-rpath,{folder}", "-Wl,-z,now"]
    if versioned is not None:
        script = _write(folder.parent / "versions", f"{versioned.upper()}_1 {{ global: *; }};")
        command.append(f"-Wl,--version-script={script}")
    subprocess.run([*command, "-o", library, code, *(folder / name for name in needs)], check=True)


def _call(library: Path, function: str) -> tuple[int, str]:
    program = f"import ctypes; print(ctypes.CDLL({str(library)!r}).{function}())"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout


def test_equal_folders_give_equal_archives(tmp_path: Path) -> None:
    """The order and the times of the files on the disk do not matter."""
    for number, names in enumerate((("b.py", "a.so"), ("a.so", "b.py"))):
        for name in names:
            _write(tmp_path / str(number) / "package" / name, name)
        build.write_archive(tmp_path / str(number), tmp_path / f"{number}.zip")
    assert (tmp_path / "0.zip").read_bytes() == (tmp_path / "1.zip").read_bytes()


def test_too_large_folder_names_its_largest_parts(tmp_path: Path) -> None:
    """Lambda would refuse it only at the deployment."""
    _write(tmp_path / "package/module.py")
    build.check_size(tmp_path)
    with (tmp_path / "package/weights").open("wb") as file:
        file.truncate(build.LIMIT_BYTES + 1)
    with pytest.raises(SystemExit, match=r"262144001 bytes unpacked.*package 262 MB"):
        build.check_size(tmp_path)


def test_functions_need_the_core_and_their_own_extra() -> None:
    """Without torch, Celery or OpenVINO."""
    needs = " ".join(build.requirements(CHECKOUT / "setup.cfg"))
    assert all(name in needs for name in ("boto3", "pydantic", "onnxruntime", "awslambdaric"))
    assert not any(name in needs for name in ("celery", "torch", "openvino"))
