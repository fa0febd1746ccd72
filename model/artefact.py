"""The model artefact: a directory with a pack's ONNX graphs and `model.json`, which describes them.

Only the standard library is imported, because every process reads the description at its start.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from model.packs import PERMISSIVE, RESEARCH, CropSpec, DetectorSpec, EmbedderSpec, Licence
from model.tail import VERIFICATION_FMR, ImpostorTail

HEADER = "model.json"
SCHEMA = 2
EMBEDDER = "embedder.onnx"
DETECTORS = {"mtcnn": ("pnet.onnx", "rnet.onnx", "onet.onnx"), "yunet": ("detector.onnx",), "scrfd": ("detector.onnx",)}
"""The graphs of each kind of detector (`DetectorSpec.kind`)."""

OnProgress = Callable[[str, float | None], None]
"""Called with the current step and its progress, from 0 to 1, or None if that is unknown."""


def silent(_text: str, _share: float | None) -> None:
    """Show no progress."""


class ArtefactError(Exception):
    """The base of every error about the artefact; its text is one sentence that says what to do."""


class ArtefactMissing(ArtefactError):
    """There is no artefact in the directory."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"there is no model in {path}: run `facerec model build` (or `facerec model pull`)")
        self.path = path


class ArtefactInvalid(ArtefactError):
    """The artefact in the directory is damaged, incomplete, or of a schema that this version cannot read."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"the model in {path} cannot be used, {reason}: run `facerec model build --force`")
        self.path = path
        self.reason = reason


class BuildFailed(ArtefactError):
    """The artefact could not be built; nothing was written to its directory."""


@dataclass(frozen=True)
class FileStamp:
    """The expected size of a file of the artefact, and its sha256 in hexadecimal."""

    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """Return the stamp of an existing file."""
        return cls(size_bytes=path.stat().st_size, sha256=file_sha256(path))


@dataclass(frozen=True)
class Artefact:
    """A readable artefact, made by `load`.

    `pack` is the pack's name. `licence`, `detector`, `crop`, `embedder` and `center_weight` are those of
    `model.packs.Pack`. `min_cosine` is the embedder's agreement with the published network, run by `checked_with`.
    `header` is `model.json` as read.
    """

    directory: Path
    model_id: str
    pack: str
    licence: Licence
    detector: DetectorSpec
    crop: CropSpec
    embedder: EmbedderSpec
    center_weight: float
    weights_name: str
    weights_source: str
    tail: ImpostorTail
    tail_calibrated: bool
    """Whether the impostor tail was measured with these weights."""
    created_at: str
    min_cosine: float
    checked_with: str
    files: Mapping[str, FileStamp]
    header: Mapping[str, Any]

    @property
    def dimension(self) -> int:
        """How many numbers an embedding has."""
        return self.embedder.dimension

    @property
    def threshold(self) -> float:
        """The similarity from which on two photos count as one person: that at `VERIFICATION_FMR`."""
        return self.tail.similarity_at(VERIFICATION_FMR).value

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read the description and check that every file is readable and has its size; no graph is loaded.

        Raises `ArtefactMissing` without a description, and `ArtefactInvalid` if it or a file is wrong.
        """
        try:
            text = (directory / HEADER).read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise ArtefactMissing(directory) from exc
        except OSError as exc:
            raise ArtefactInvalid(directory, f"{HEADER} cannot be read ({exc.strerror})") from exc
        except UnicodeError as exc:
            raise ArtefactInvalid(directory, f"{HEADER} is not a description of a model") from exc
        artefact = cls.parse(text, directory)
        for name, stamp in artefact.files.items():
            try:
                with (directory / name).open("rb") as file:  # a file that exists may still be unreadable
                    size = os.fstat(file.fileno()).st_size
            except FileNotFoundError as exc:
                raise ArtefactInvalid(directory, f"{name} is missing") from exc
            except OSError as exc:
                raise ArtefactInvalid(directory, f"{name} cannot be read ({exc.strerror})") from exc
            if size != stamp.size_bytes:
                raise ArtefactInvalid(directory, f"{name} has {size} bytes instead of {stamp.size_bytes}")
        return artefact

    @classmethod
    def parse(cls, text: str, directory: Path) -> Self:
        """Return the artefact that a `model.json` describes, without checking its files; raises `ArtefactInvalid`."""
        try:
            header = json.loads(text)
            schema = header["schema"]
        except (ValueError, KeyError, TypeError) as exc:
            raise ArtefactInvalid(directory, f"{HEADER} is not a description of a model") from exc
        if schema != SCHEMA:
            raise ArtefactInvalid(directory, f"{HEADER} has schema {schema} and this version reads schema {SCHEMA}")
        try:
            return cls(directory=directory, header=header, **_fields(header))
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise ArtefactInvalid(directory, f"{HEADER} lacks or garbles {exc}") from exc

    def path(self, name: str) -> Path:
        """Return the file of a graph by its name (`embedder.onnx`); raises KeyError for an unknown name."""
        if name not in self.files:
            raise KeyError(name)
        return self.directory / name

    def verify(self) -> None:
        """Read every file and compare its sha256; raises `ArtefactInvalid` with the first that differs."""
        for name, stamp in self.files.items():
            try:
                found = file_sha256(self.directory / name)
            except OSError as exc:
                raise ArtefactInvalid(self.directory, f"{name} cannot be read ({exc.strerror})") from exc
            if found != stamp.sha256:
                raise ArtefactInvalid(self.directory, f"{name} is damaged (its sha256 differs)")


def _fields(header: Mapping[str, Any]) -> dict[str, Any]:
    detector = DetectorSpec(str(header["detector"]["kind"]), dict(header["detector"]["options"]))
    licence = header["licence"]
    if licence not in {PERMISSIVE, RESEARCH}:
        raise ValueError(f"licence: {licence!r}")
    files = {
        name: FileStamp(size_bytes=int(stamp["size_bytes"]), sha256=str(stamp["sha256"]))
        for name, stamp in header["files"].items()
    }
    graphs = (*DETECTORS[detector.kind], EMBEDDER)
    if set(files) != set(graphs):
        # This also rejects names with a path, as a description may come from a bucket.
        raise ValueError(f"files: expected {', '.join(graphs)}")
    return {
        "model_id": str(header["model_id"]),
        "pack": str(header["pack"]),
        "licence": licence,
        "detector": detector,
        "crop": CropSpec(**header["crop"]),
        "embedder": EmbedderSpec(**header["embedder"]),
        "center_weight": float(header["primary_face"]["center_weight"]),
        "weights_name": str(header["weights"]["name"]),
        "weights_source": str(header["weights"]["source"]),
        "tail": ImpostorTail.from_json(header["impostor_tail"]),
        "tail_calibrated": bool(header["impostor_tail"]["calibrated"]),
        "created_at": str(header["created_at"]),
        "min_cosine": float(header["check"]["least_cosine"]),
        "checked_with": str(header["check"]["engine"]),
        "files": files,
    }


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def staged_file(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file that takes the place of `path` if the block ends without an error; only its owner may read it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


@contextmanager
def staged(directory: Path) -> Iterator[Path]:
    """Yield an empty directory beside `directory`, and put it in its place if the block ends without an error.

    A reader finds the old artefact, the new one or, for a moment between two renames, none. Two writers at once leave
    one complete artefact. Every user may read it, only its owner may write. Raises `BuildFailed` if `directory`
    contains anything but an artefact, which is never overwritten.
    """
    directory = directory.absolute()
    check_replaceable(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        yield stage
        # Independent of the umask, because the worker usually runs as another user.
        for path in stage.iterdir():
            path.chmod(0o644)
        stage.chmod(0o755)
        _swap(stage, directory)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def check_replaceable(directory: Path) -> None:
    """Raise `BuildFailed` unless the directory is missing, empty, or an artefact."""
    names: set[str] = set()
    inode = None
    try:
        while inode != directory.stat().st_ino:  # another writer replaced it while it was listed
            inode = directory.stat().st_ino
            names = {path.name for path in directory.iterdir()}
    except FileNotFoundError:
        return
    except NotADirectoryError as exc:
        raise BuildFailed(f"{directory} is a file: choose a directory") from exc
    if names and HEADER not in names:
        raise BuildFailed(f"{directory} holds other files than a model: choose an empty or a new directory")


def _swap(stage: Path, directory: Path) -> None:
    # A directory cannot be renamed onto a full one, so the old one is first moved to a unique name.
    while True:
        try:
            stage.rename(directory)
        except OSError as exc:
            if exc.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
        else:
            return
        aside = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
        try:
            directory.rename(aside)
        except FileNotFoundError:
            continue  # another writer moved it at the same moment
        finally:
            shutil.rmtree(aside, ignore_errors=True)
