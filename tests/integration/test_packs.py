"""The packs with their real weights: the engines agree, and each pack finds and matches faces as promised."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from io import BytesIO
from itertools import combinations
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from facerec.engine.supervisor import SupervisedDetector, SupervisedEmbedder
from facerec.faces_message import faces_message, picture_faces
from facerec.message_base import ObjectRef
from facerec.messages import FacesMessage, RecognitionRequest
from facerec.settings import Settings
from facerec.settings.resources import ModelSettings
from facerec.settings.tiers import WorkerSettings
from model.analysis import PictureLimits, analyse
from model.artefact import EMBEDDER, Artefact
from model.engines import Engine, EngineUnavailable, detect_one, open_detector, open_embedder, open_engine
from model.faces import DetectedFace, EmbeddedFace
from model.header import InvalidImage
from model.imaging import decode
from tests.parity.pictures import COMPOSED, EXAMPLES, PHOTOS, VARIANTS, photo
from tests.support.processes import CHECKOUT

BOX_TOLERANCE_PIXELS = 0.5
MIN_COSINE = 0.9999
OBAMA = EXAMPLES / "gallery" / "Barack Obama" / "official_portrait_2012.jpg"
FACELESS = EXAMPLES / "probes" / "image_04.jpg"

Pixels = NDArray[np.uint8]


REQUEST = RecognitionRequest(
    request_id=uuid4(),
    input=ObjectRef(bucket="in", key="1/a.jpg", size=5),
    filename="a.jpg",
    submitted_at=datetime(2026, 11, 1, tzinfo=UTC),
)


@dataclass(frozen=True)
class Halves:
    """A model, whole and in halves."""

    engine: Engine
    detector: SupervisedDetector
    embedder: SupervisedEmbedder
    crop_side: int


@pytest.fixture(scope="module", params=["open", "accurate"])
def artefact(request: pytest.FixtureRequest) -> Artefact:
    """Each pack with a grid detector."""
    directory: Path = request.getfixturevalue({"open": "artefact_dir", "accurate": "accurate_dir"}[request.param])
    return Artefact.load(directory)


@pytest.fixture(scope="module")
def engines(artefact: Artefact) -> dict[str, Engine]:
    """The pack on each engine, in float32."""
    return {name: open_engine(artefact, name, precision="fp32") for name in ("openvino", "onnxruntime")}


@pytest.fixture(scope="module")
def engine(engines: dict[str, Engine]) -> Engine:
    """The pack on the engine that is preferred."""
    return engines["openvino"]


def pixels(image: Image.Image) -> Pixels:
    """A picture as a detector gets it."""
    return np.asarray(image.convert("RGB"))


def embedding(engine: Engine, image: Pixels, face: DetectedFace) -> NDArray[np.float32]:
    """The face's embedding."""
    vector: NDArray[np.float32] = engine.embed(engine.cropper.crop(image, face)[np.newaxis]).vectors[0]
    return vector


PICTURES: dict[str, Callable[[], Image.Image]] = COMPOSED | {
    f"{path.name} {name}": lambda path=path, variant=variant: variant(photo(path))
    for path in PHOTOS
    for name, variant in VARIANTS.items()
}


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_engines_agree_on_faces_and_embeddings(engines: dict[str, Engine], name: str) -> None:
    """A fleet may mix machines."""
    image = pixels(PICTURES[name]())
    one, other = (engine.detect(image) for engine in engines.values())
    assert len(one) == len(other)
    for face, twin in zip(one, other, strict=True):
        for edge in ("x_min", "y_min", "x_max", "y_max"):
            assert getattr(face.box, edge) == pytest.approx(getattr(twin.box, edge), abs=BOX_TOLERANCE_PIXELS)
        if name.endswith("on its side"):
            continue  # no detector finds the points of a face on its side: they are arbitrary
        first, second = (
            embedding(engine, image, seen) for engine, seen in zip(engines.values(), (face, twin), strict=True)
        )
        assert float(first @ second) >= MIN_COSINE


def test_bf16_embeddings_agree_with_fp32(artefact: Artefact, engine: Engine) -> None:
    """On real crops, if this CPU has bf16."""
    try:
        half = open_engine(artefact, "openvino", precision="bf16")
    except EngineUnavailable as exc:
        pytest.skip(str(exc))
    for path in PHOTOS:
        image = decode(path.read_bytes())
        crops = [engine.cropper.crop(image, face) for face in engine.detect(image)]
        if crops:
            exact, fast = engine.embed(np.stack(crops)).vectors, half.embed(np.stack(crops)).vectors
            assert (exact * fast).sum(axis=1).min() >= 0.999


def test_samples_of_one_person_match_and_others_do_not(engine: Engine, artefact: Artefact) -> None:
    """At the verification threshold, on every pair of sample photos with a face."""
    faces: dict[str, EmbeddedFace] = {}
    for path in PHOTOS:
        found = analyse(engine, path.read_bytes(), PictureLimits()).faces
        if found:
            faces[path.name] = found[0]
    obama = {"official_portrait_2012.jpg", "image_01.jpg", "image_05.jpg"}
    biden = {"blue_room_2010.jpg", "image_03.jpg"}
    assert obama | biden <= faces.keys()
    for one, other in combinations(faces, 2):
        similarity = float(faces[one].embedding @ faces[other].embedding)
        same = {one, other} <= obama or {one, other} <= biden
        assert (similarity >= artefact.threshold) == same, f"{one} {other}: {similarity:.3f}"


def test_faceless_pictures_have_no_face(engine: Engine) -> None:
    """A photo without a person, noise, a grey spot."""
    for image in (photo(FACELESS), COMPOSED["noise"](), COMPOSED["10 by 10"](), Image.new("RGB", (900, 600), "white")):
        assert engine.detect(pixels(image)) == []


@pytest.mark.parametrize("side", [48, 64, 160, 320, 640, 1600])
def test_face_that_fills_the_picture_is_found_at_every_size(engine: Engine, side: int) -> None:
    """Beyond 40 % of the picture, the limit of these detectors."""
    image = decode(OBAMA.read_bytes())
    box = engine.detect(image)[0].box
    tight = photo(OBAMA).crop((int(box.x_min), int(box.y_min), int(box.x_max), int(box.y_max)))
    assert len(engine.detect(pixels(ImageOps.fit(tight, (side, side))))) == 1


def assert_corner_face_is_within(engine: Engine) -> None:
    """A face of which a corner of the picture cuts a quarter of each side is found, and reported within the picture."""
    whole = ImageOps.contain(photo(OBAMA), (400, 400))
    box = engine.detect(pixels(whole))[0].box
    left, top = box.x_min + (box.x_max - box.x_min) / 4, box.y_min + (box.y_max - box.y_min) / 4
    buffer = BytesIO()
    whole.crop((int(left), int(top), whole.width, whole.height)).save(buffer, "PNG")
    analysis = analyse(engine, buffer.getvalue(), PictureLimits())
    assert analysis.faces
    for face in analysis.faces:
        assert 0 <= face.box.x_min < face.box.x_max <= analysis.width
        assert 0 <= face.box.y_min < face.box.y_max <= analysis.height
        assert all(0 <= x <= analysis.width and 0 <= y <= analysis.height for x, y in face.landmarks)


def test_face_cut_by_the_corner_is_reported_within_the_picture(engine: Engine) -> None:
    """Also where the detector completes it beyond the edges."""
    assert_corner_face_is_within(engine)


def test_classic_face_cut_by_the_corner_is_reported_within_the_picture(classic_dir: Path) -> None:
    """Its detector goes farthest beyond the edges."""
    assert_corner_face_is_within(open_engine(Artefact.load(classic_dir), "openvino", precision="fp32"))


@pytest.mark.parametrize("degrees", [-30, -15, 15, 30])
def test_turned_heads_have_the_embeddings_of_upright_ones(engine: Engine, artefact: Artefact, degrees: int) -> None:
    """Each matches itself, half of them closely, after the second detection."""
    similarities = []
    for path in PHOTOS:
        upright = ImageOps.pad(photo(path), (1000, 1000))
        turned = upright.rotate(degrees, Image.Resampling.BICUBIC)
        faces = [engine.detect(pixels(image)) for image in (upright, turned)]
        if len(faces[0]) == 1:
            one, other = (
                embedding(engine, pixels(image), found[0])
                for image, found in zip((upright, turned), faces, strict=True)
            )
            similarities.append(float(one @ other))
    assert min(similarities) >= artefact.threshold
    assert np.median(similarities) >= 0.8


@cache
def crowd() -> Image.Image:
    """A picture of 3 000 by 2 000 with one small face far from its middle: 45 pixels between the box's sides."""
    canvas = Image.new("RGB", (3000, 2000), "slategrey")
    canvas.paste(ImageOps.fit(photo(OBAMA), (90, 90)), (2700, 300))
    return canvas


def test_smaller_faces_are_found_with_the_setting(engine: Engine) -> None:
    """At the price of a larger input."""
    image = pixels(crowd())

    def seen(min_face_pixels: int | None) -> int:
        side = engine.detector.min_side(image.shape[1], image.shape[0], min_face_pixels)
        return len(engine.detector.detect_batch([image], [side])[0])

    assert seen(20) == 1


def test_large_jpeg_gives_the_same_answer_as_its_pixels(engine: Engine, tmp_path: Path) -> None:
    """Reduced decoding moves neither face nor name."""
    large = photo(OBAMA).resize((3032, 3200), Image.Resampling.LANCZOS)
    large.save(tmp_path / "large.jpg", quality=95)
    large.save(tmp_path / "large.png", compress_level=1)
    reduced, full = (
        analyse(engine, (tmp_path / f"large.{kind}").read_bytes(), PictureLimits()) for kind in ("jpg", "png")
    )
    assert (reduced.width, reduced.height) == (full.width, full.height) == (3032, 3200)
    (one,), (other,) = reduced.faces, full.faces
    assert one.box.x_min == pytest.approx(other.box.x_min, abs=0.01 * 3200)
    assert float(one.embedding @ other.embedding) >= 0.98


@pytest.fixture(scope="module", params=["open", "classic"])
def halves(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Halves]:
    """Both halves of a pack on ONNX Runtime, each in a child of its own, and the whole engine beside them."""
    directory: Path = request.getfixturevalue({"open": "artefact_dir", "classic": "classic_dir"}[request.param])
    cache = tmp_path_factory.mktemp("cache")
    settings = Settings(
        engine="onnxruntime", worker=WorkerSettings(engines=1), model=ModelSettings(dir=directory, cache_dir=cache)
    )
    artefact = Artefact.load(directory)
    with (
        closing(SupervisedDetector(settings, directory)) as detector,
        closing(SupervisedEmbedder(settings, directory)) as embedder,
    ):
        detector.start()
        embedder.start()
        yield Halves(open_engine(artefact, "onnxruntime"), detector, embedder, artefact.crop.image_size)


def jpeg(image: Image.Image) -> bytes:
    """A picture as a file."""
    stream = BytesIO()
    image.save(stream, "JPEG")
    return stream.getvalue()


SENT: dict[str, Callable[[], bytes]] = {
    "a portrait": OBAMA.read_bytes,
    "no face": FACELESS.read_bytes,
    "a group": lambda: jpeg(COMPOSED["a group"]()),
    "a group that is decoded smaller": lambda: jpeg(ImageOps.scale(COMPOSED["a group"](), 2)),
}


@pytest.mark.parametrize("name", SENT)
def test_halves_in_two_processes_give_the_whole_analysis(halves: Halves, name: str) -> None:
    """Bit by bit: the embeddings, the quality, the boxes; through the message between them."""
    data = SENT[name]()
    whole = analyse(halves.engine, data, PictureLimits())
    assert halves.detector.model_id == halves.embedder.model_id == halves.engine.model_id
    assert halves.detector.precision == halves.embedder.precision == halves.engine.precision
    found = halves.detector.detect(data)
    assert len(found.faces) == len(whole.faces)
    assert ("group" in name) == (len(whole.faces) > 1)
    if not found.faces:
        return
    sent = faces_message(REQUEST, found, halves.detector.model_id, found.timings_ms)
    received = picture_faces(
        FacesMessage.parse(sent.to_json()), found.crops, crop_side=halves.crop_side, max_faces=len(found.faces)
    )
    analysis = halves.embedder.embed(received)
    assert (analysis.width, analysis.height, analysis.more_faces) == (whole.width, whole.height, whole.more_faces)
    for face, expected in zip(analysis.faces, whole.faces, strict=True):
        assert (face.box, face.landmarks, face.probability) == (expected.box, expected.landmarks, expected.probability)
        assert face.quality == expected.quality
        assert face.embedding.tobytes() == expected.embedding.tobytes()


def test_detector_half_refuses_an_invalid_picture(halves: Halves) -> None:
    """With the sentence for the client."""
    with pytest.raises(InvalidImage, match="send a JPEG"):
        halves.detector.detect(b"no picture")


def spoiled(directory: Path, copy: Path, names: Collection[str]) -> Artefact:
    """The artefact with zeros in these networks."""
    shutil.copytree(directory, copy)
    for name in names:
        (copy / name).write_bytes(bytes((copy / name).stat().st_size))
    return Artefact.load(copy)


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_half_of_an_engine_reads_only_its_networks(artefact_dir: Path, tmp_path: Path, name: str) -> None:
    """A function starts with what it needs."""
    whole = open_engine(Artefact.load(artefact_dir), name)
    detector = open_detector(spoiled(artefact_dir, tmp_path / "one", {EMBEDDER}), name)
    image = decode(OBAMA.read_bytes())
    (face,) = detect_one(detector.detector, image)
    assert [face] == whole.detect(image)
    crops = detector.cropper.crop(image, face)[np.newaxis]
    embedder = open_embedder(spoiled(artefact_dir, tmp_path / "other", {"detector.onnx"}), name)
    assert np.array_equal(embedder.embed(crops).vectors, whole.embed(crops).vectors)
    for half in (detector, embedder):
        assert (half.model_id, half.name, half.precision) == (whole.model_id, whole.name, whole.precision)


def test_embedder_starts_without_the_libraries_for_pictures(artefact_dir: Path, tmp_path: Path) -> None:
    """They take longer to load than the embedder."""
    program = (
        "import sys; from pathlib import Path; from facerec.engine.child import EngineSpec; "
        "from facerec.engine.loading import open_embedder; sys.modules['cv2'] = sys.modules['PIL'] = None; "
        f"open_embedder(EngineSpec(Path({str(artefact_dir)!r}), 'onnxruntime', 50, Path({str(tmp_path)!r})))"
    )
    subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": str(CHECKOUT)}, check=True, timeout=60)
