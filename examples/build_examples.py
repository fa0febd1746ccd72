"""Make the sample pictures again from the packages that carry the originals.

    pip download --no-deps --dest DIR --no-binary face_recognition face_recognition==1.3.0
    pip download --no-deps --dest DIR --only-binary :all: scikit-image matplotlib
    python examples/build_examples.py DIR

Needs Pillow. Every original is checked against its SHA-256 before it is used. The last bits of a JPEG depend on the
encoder: where the printed hashes differ from NOTICE.md, a different version of Pillow or libjpeg made the files.
"""

import argparse
import hashlib
import tarfile
import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageEnhance, ImageOps

HERE = Path(__file__).parent
QUALITY = 88
PANEL = (320, 420)

Crop = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Original:
    """A picture inside a package: the archive's name (a glob pattern), the path within, and its SHA-256."""

    archive: str
    member: str
    sha256: str

    def open(self, folder: Path) -> Image.Image:
        """Return the picture as RGB, found in an archive of `folder`; `SystemExit` where it is absent or differs."""
        archives = sorted(folder.glob(self.archive))
        if not archives:
            raise SystemExit(
                f"{folder} has no {self.archive}: see the pip commands at the top of {Path(__file__).name}"
            )
        content = _read(archives[-1], self.member)
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise SystemExit(f"{self.member} in {archives[-1].name} is not the picture that NOTICE.md describes")
        with Image.open(BytesIO(content)) as image:
            return image.convert("RGB")


def _white_house(name: str, sha256: str) -> Original:
    """Return an official White House photo from the source distribution of face_recognition."""
    return Original("face_recognition-1.3.0.tar.gz", f"face_recognition-1.3.0/tests/test_images/{name}", sha256)


OBAMA_2012 = _white_house("obama.jpg", "0930e3aa8cae5920329c0c8cbc6a2ab70f47b0e67b432875beaa95cbf7e741f6")
OBAMA_2009 = _white_house("obama2.jpg", "a7efcc907375274796f39646510704aa86672d59f6d5469d69af3c85590976a6")
OBAMA_2010 = _white_house("obama3.jpg", "76ac6bf97c36dc2da0ad16a537d6a5ac1b10f48d49aac29a0cca9a17cdbc3ca3")
BIDEN_2010 = _white_house("biden.jpg", "3c17508bb91554c637a2eabddfae790e5bb1caba93130814fc2ac50be9760c4c")
COLLINS = Original(
    "scikit_image-*.whl",
    "skimage/data/astronaut.png",
    "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
)
ROCKET = Original(
    "scikit_image-*.whl",
    "skimage/data/rocket.jpg",
    "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
)
HOPPER = Original(
    "matplotlib-*.whl",
    "matplotlib/mpl-data/sample_data/grace_hopper.jpg",
    "a8ca6d734765703b09728ab47fe59f473d93ae3967fc24c7c0288c3c7adb7130",
)


def main() -> None:
    """Write every picture and print its hash."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, help="the folder with the downloaded packages")
    for name, image in pictures(parser.parse_args().sources).items():
        path = HERE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # A new image has no EXIF, XMP, IPTC or colour profile to carry over.
        bare = Image.new("RGB", image.size)
        bare.paste(image)
        bare.save(path, "JPEG", quality=QUALITY, optimize=True)
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}  {image.width}x{image.height}")


def pictures(sources: Path) -> dict[str, Image.Image]:
    """Return each sample picture under its path below examples/."""
    # The portrait is cut above the desk: the detector takes an object on it for a face.
    obama = _fit(OBAMA_2012.open(sources).crop((0, 0, 910, 960)), 800)
    biden = BIDEN_2010.open(sources)
    return {
        "gallery/Barack Obama/official_portrait_2012.jpg": obama,
        "gallery/Joe Biden/blue_room_2010.jpg": _fit(biden.crop((0, 0, 970, 1250)), 800),
        "probes/image_01.jpg": _fit(OBAMA_2009.open(sources).crop((0, 60, 626, 1000)), 800),
        "probes/image_02.jpg": COLLINS.open(sources),
        "probes/image_03.jpg": _other_look(biden.crop((250, 20, 900, 860))),
        "probes/image_04.jpg": ROCKET.open(sources),
        "probes/image_05.jpg": _side_by_side(
            COLLINS.open(sources).crop((124, 10, 324, 272)),
            OBAMA_2010.open(sources).crop((474, 100, 1074, 888)),
            HOPPER.open(sources).crop((52, 20, 472, 571)),
        ),
    }


def _fit(image: Image.Image, side: int) -> Image.Image:
    """Return the picture with its longer side at most `side` pixels."""
    return ImageOps.contain(image, (side, side)) if max(image.size) > side else image


def _other_look(image: Image.Image) -> Image.Image:
    """Return the picture mirrored, grey, darker and small: as far from the enrolled crop as one exposure can go."""
    grey = ImageOps.grayscale(ImageOps.mirror(image)).convert("RGB")
    return _fit(ImageEnhance.Brightness(grey).enhance(0.7), 420)


def _side_by_side(*images: Image.Image) -> Image.Image:
    """Return the pictures in a row, each scaled to fill a panel of the same size."""
    row = Image.new("RGB", (PANEL[0] * len(images), PANEL[1]))
    for column, image in enumerate(images):
        row.paste(ImageOps.fit(image, PANEL), (PANEL[0] * column, 0))
    return row


def _read(archive: Path, member: str) -> bytes:
    """Return one file of a source distribution or a wheel."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(member)
    with tarfile.open(archive) as source:
        file = source.extractfile(member)
        if file is None:
            raise SystemExit(f"{archive.name} has no file {member}")
        return file.read()


if __name__ == "__main__":
    main()
