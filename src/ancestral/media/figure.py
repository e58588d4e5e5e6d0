"""A figure: frames with axes on white paper, for what has no pixels of its own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ancestral.media.letters import font, shortened
from ancestral.media.pixels import Pixels

Color = tuple[int, int, int]
SERIES: tuple[Color, ...] = ((49, 104, 178), (226, 116, 34), (62, 146, 84), (140, 90, 170))
"""The colors of what is compared, in order."""
_INK: Color = (64, 64, 64)
_FRAME: Color = (196, 196, 196)
_TITLE, _TICK = 14, 12
"""Heights of letters, in pixels."""


@dataclass(frozen=True)
class Axis:
    """A range of values over a number of pixels."""

    low: float
    high: float
    pixels: int

    @classmethod
    def around(cls, low: float, high: float, pixels: int) -> "Axis":
        """The axis with a margin around the extremes; of equal ones, with room on both sides."""
        margin = 0.05 * (high - low) or 0.5 * max(1.0, abs(low))
        return cls(low - margin, high + margin, pixels)

    def place(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """How many pixels from the low end values are."""
        return (values - self.low) / (self.high - self.low) * self.pixels

    def ticks(self, apart: int) -> list[tuple[int, str]]:
        """Round values at least ``apart`` pixels from each other: their places, and how they are written."""
        span = self.high - self.low
        power = 10.0 ** math.floor(math.log10(span * apart / self.pixels))
        step = next(f * power for f in (1, 2, 5, 10, 20) if f * power / span * self.pixels >= apart)
        first = math.ceil(self.low / step - 1e-9)
        multiples = range(first, math.floor(self.high / step + 1e-9) + 1)
        places = [round(self.place(np.array(m * step)).item()) for m in multiples]
        return [(place, f"{m * step:.6g}") for place, m in zip(places, multiples, strict=True)]


class Figure:
    """White paper, drawn on from the left upper corner."""

    def __init__(self, width: int, height: int) -> None:
        self.pixels: Pixels = np.full((height, width, 3), 255, np.uint8)

    def shade(self, left: int, top: int, cover: npt.NDArray[np.float64], color: Color) -> None:
        """Lay a color over a part, each pixel to the share ``cover`` ``(h, w)``; paper's edges cut it off."""
        cover = cover[max(0, -top) :, max(0, -left) :]
        top, left = max(0, top), max(0, left)
        part = self.pixels[top : top + cover.shape[0], left : left + cover.shape[1]]
        cover = cover[: part.shape[0], : part.shape[1]]
        inked = cover > 0
        share = cover[inked][:, None]
        part[inked] = np.rint(part[inked] * (1 - share) + np.array(color) * share).astype(np.uint8)

    def frame(self, left: int, top: int, width: int, height: int) -> None:
        """A frame around a part."""
        self.pixels[top - 1 : top + height + 1, [left - 1, left + width]] = _FRAME
        self.pixels[[top - 1, top + height], left - 1 : left + width + 1] = _FRAME

    def below(self, left: int, top: int, axis: Axis, name: str = "") -> None:
        """Ticks and the name of an axis below a frame whose lower left corner is given."""
        for place, text in axis.ticks(48):
            self.pixels[top : top + 4, left + min(place, axis.pixels - 1)] = _INK
            inward = "l" if place < 8 else "r" if place > axis.pixels - 8 else "m"
            self.write(left + place, top + 6, text, f"{inward}a")
        self.write(left + axis.pixels // 2, top + 22, shortened(name, axis.pixels, _TITLE), "ma", size=_TITLE)

    def beside(self, left: int, top: int, axis: Axis, name: str = "") -> None:
        """Ticks and the name of an axis to the left of a frame whose upper left corner is given."""
        for place, text in axis.ticks(24):
            row = axis.pixels - 1 - min(place, axis.pixels - 1)
            self.pixels[top + row, left - 4 : left] = _INK
            inward = "a" if row < 6 else "d" if row > axis.pixels - 6 else "m"
            self.write(left - 7, top + row, text, f"r{inward}")
        turned = np.rot90(_lettered(shortened(name, axis.pixels, _TITLE), _TITLE))
        self.shade(6, top + (axis.pixels - len(turned)) // 2, turned, _INK)

    def write(self, x: int, y: int, text: str, anchor: str, *, size: int = _TICK) -> int:
        """Write text with Pillow's anchor at a place; how wide it is."""
        right, below, _, _ = font(text, size).getbbox(text, anchor=anchor)
        cover = _lettered(text, size)
        self.shade(x + math.floor(right), y + math.floor(below), cover, _INK)
        return cover.shape[1]

    def title(self, text: str, series: Sequence[str] = ()) -> None:
        """A line at the top: what is shown, and what its colors mean."""
        x = 10 + self.write(10, 8, text, "la", size=_TITLE)
        for name, color in zip(series, SERIES, strict=False):
            x += 18
            self.pixels[11:21, x : x + 10] = color
            x += 16 + self.write(x + 16, 8, name, "la", size=_TITLE)


def names_of(versions: int) -> list[str]:
    """What a comparison calls originals and their versions."""
    return ["original", *(["version"] if versions == 1 else [f"version {i + 1}" for i in range(versions)])]


def _lettered(text: str, size: int) -> npt.NDArray[np.float64]:
    """The share to which letters cover each pixel of their box."""
    letters = font(text, size)
    left, top, right, bottom = letters.getbbox(text)
    image = Image.new("L", (max(1, math.ceil(right - left)), max(1, math.ceil(bottom - top))))
    ImageDraw.Draw(image).text((-left, -top), text, fill=255, font=letters)
    return np.asarray(image) / 255.0
