"""Photos as of `tests.fakes.drawn_faces` for the eye: a cartoon of each person where the engine finds the face."""

import colorsys
import hashlib
import math
from io import BytesIO

from PIL import Image, ImageDraw

from model.faces import Box
from tests.fakes.drawn_faces import DrawnFace, boxes_of, with_faces

_SKIN = ("#f3cfb3", "#e8b48f", "#c98d62", "#9a6540", "#6f4529", "#fbe0cc")
_HAIR = ("#2a1d17", "#5b3a21", "#8d5a2b", "#c9a15a", "#3c3c44", "#a8a8ad", "#7a2f1d")
_SCALE = 2
"""It is drawn larger and scaled down, so that edges are smooth."""


def portrait(*faces: str | DrawnFace, take: int = 0, side: int = 240) -> bytes:
    """A photo of these people, just large enough for them; without any, of a landscape."""
    drawn = [face if isinstance(face, DrawnFace) else DrawnFace(face, side=side, take=take) for face in faces]
    boxes = boxes_of(drawn)
    width = int(max((box.x_max for box in boxes), default=630)) + 10
    height = int(max((box.y_max for box in boxes), default=360) * 1.3)
    picture = Image.new("RGB", (width * _SCALE, height * _SCALE))
    pen = ImageDraw.Draw(picture)
    hue = _numbers("".join(face.name for face in drawn) + str(take))[0] / 255
    for line in range(height):
        colour = _colour(hue, 0.3, 0.85 - 0.4 * line / height)
        pen.rectangle((0, line * _SCALE, width * _SCALE, (line + 1) * _SCALE), fill=colour)
    if not drawn:
        for number in range(4):
            top = height * (0.45 + 0.12 * number)
            hills = [(x, top + 24 * math.sin(x / (90 + 30 * number) + number)) for x in range(0, width + 8, 8)]
            outline = [(x * _SCALE, y * _SCALE) for x, y in (*hills, (width, height), (0, height))]
            pen.polygon(outline, fill=_colour(hue, 0.35, 0.6 - 0.12 * number))
    for face, box in zip(drawn, boxes, strict=True):
        _draw(pen, face.name, box)
    buffer = BytesIO()
    picture.resize((width, height), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=88)
    return with_faces(buffer.getvalue(), drawn)


def _draw(pen: ImageDraw.ImageDraw, name: str, box: Box) -> None:
    """Draw the person whose face is in the box; the same name always looks the same."""
    traits = _numbers(name)
    skin, hair = _SKIN[traits[1] % len(_SKIN)], _HAIR[traits[2] % len(_HAIR)]
    side = box.x_max - box.x_min

    def at(*shares: float) -> list[float]:
        origin = (box.x_min, box.y_min)
        return [_SCALE * (origin[place % 2] + share * side) for place, share in enumerate(shares)]

    pen.ellipse(at(-0.12, 1.06, 1.12, 2.2), fill=_colour(traits[3] / 255, 0.45, 0.45))
    long_hair = traits[4] % 2
    pen.rounded_rectangle(at(0.04, 0.0, 0.96, 1.2 if long_hair else 0.62), radius=0.42 * side * _SCALE, fill=hair)
    pen.rectangle(at(0.38, 0.8, 0.62, 1.2), fill=skin)
    pen.ellipse(at(0.12, 0.08, 0.88, 1.0), fill=skin)
    pen.chord(at(0.1, 0.02, 0.9, 0.62), 180 + traits[5] % 25, 360 - traits[6] % 25, fill=hair)
    for middle in (0.33, 0.67):
        pen.ellipse(at(middle - 0.065, 0.37, middle + 0.065, 0.45), fill="#ffffff")
        pen.ellipse(at(middle - 0.035, 0.375, middle + 0.035, 0.445), fill="#2b2b30")
        if traits[7] % 3 == 0:
            pen.ellipse(at(middle - 0.13, 0.3, middle + 0.13, 0.52), outline="#222222", width=2 * _SCALE)
    pen.line(at(0.5, 0.44, 0.47, 0.6, 0.52, 0.61), fill="#6b4a3a", width=1 * _SCALE)
    pen.arc(at(0.36, 0.6, 0.64, 0.8), 15, 165, fill="#8c2f39", width=4 * _SCALE)


def _numbers(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _colour(hue: float, saturation: float, value: float) -> str:
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))
    return f"#{red:02x}{green:02x}{blue:02x}"
