"""Pixels: arrays of bytes that pictures are put together from, and PNG files of them."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ancestral.files import replacing
from ancestral.media.letters import font

Pixels = npt.NDArray[np.uint8]
"""Gray ``(H, W)`` or colors ``(H, W, 3)``; with a dimension before them, several pictures of one size."""
_ENLARGED = 960
"""Pixels that the longer side of a tiny picture is enlarged to, about."""
_GAP = 2
"""Pixels between the tiles of a grid."""
_WHITE, _GRAY = 248, 160
"""The least level of a white ground, and what is between tiles of such a ground."""


def grid(tiles: Pixels, columns: int | None = None, between: int | None = None) -> Pixels:
    """Tiles ``(N, H, W)`` or ``(N, H, W, 3)`` side by side, row by row.

    There are nearly as many rows as columns unless ``columns`` is given. What is between them is white, or
    gray where many tiles have white borders, unless its gray level is given.
    """
    n, height, width = tiles.shape[:3]
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    size = (rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, *tiles.shape[3:])
    result = np.full(size, gutter(tiles) if between is None else between, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = _GAP + i // columns * (height + _GAP), _GAP + i % columns * (width + _GAP)
        result[top : top + height, left : left + width] = tile
    return result


def gutter(tiles: Pixels) -> int:
    """The gray level that can be told from the ground of tiles ``(N, H, W)`` or ``(N, H, W, 3)``.

    >>> gutter(np.zeros((4, 8, 8), np.uint8)), gutter(np.full((4, 8, 8), 255, np.uint8))
    (255, 160)
    """
    colors = tiles.reshape(*tiles.shape[:3], -1)
    edges = (colors[:, 0], colors[:, -1], colors[:, :, 0], colors[:, :, -1])
    white = np.concatenate([(edge >= _WHITE).all(-1) for edge in edges], axis=1)
    return _GRAY if (white.mean(1) > 0.5).mean() >= 0.25 else 255


def with_key(pixels: Pixels, key: Mapping[str, tuple[int, int, int]]) -> Pixels:
    """Colors ``(H, W, 3)`` enlarged by a whole factor, above a key that says what each color means."""
    large = enlarged(pixels)
    line, size = 26, 16
    width = max(large.shape[1], *(int(font(name, size).getlength(name)) + 60 for name in key))
    image = Image.new("RGB", (width, large.shape[0] + line * len(key) + 20), (250, 250, 250))
    image.paste(Image.fromarray(large))
    draw = ImageDraw.Draw(image)
    for i, (name, color) in enumerate(key.items()):
        top = large.shape[0] + 12 + i * line
        draw.rectangle((12, top, 30, top + 16), fill=color, outline=(90, 90, 90))
        draw.text((42, top), name, fill=(30, 30, 30), font=font(name, size))
    return np.asarray(image)


def write_png(path: Path, pixels: Pixels, enlarge: bool = True) -> None:
    """Write a picture, whole or not at all; a tiny one is enlarged by a whole factor."""
    with replacing(path) as temporary:
        image = Image.fromarray(enlarged(pixels) if enlarge else pixels)
        image.save(temporary, format="PNG", optimize=True)


def enlarged(pixels: Pixels) -> Pixels:
    """A tiny picture enlarged by a whole factor."""
    factor = max(1, _ENLARGED // max(pixels.shape[:2]))
    return pixels.repeat(factor, 0).repeat(factor, 1)
