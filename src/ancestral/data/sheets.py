"""Integers to sheets: images side by side, written as PNG."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ancestral.files import replacing
from ancestral.spec import Spec

Pixels = npt.NDArray[np.uint8]
_ENLARGED = 960
"""Pixels that the longer side of a sheet of tiny images is enlarged to, about."""
_GAP = 2
"""Pixels between the images of a sheet."""


def to_pixels(x: Tensor, spec: Spec) -> Pixels:
    """Integers ``(N, C, H, W)`` to pixels 0..255 ``(N, H, W)`` or, of three channels, ``(N, H, W, 3)``."""
    scaled = x.detach().cpu().double() * (255.0 / (spec.discrete_levels - 1))
    pixels = scaled.round().clamp(0, 255).numpy().astype(np.uint8)
    return pixels.transpose(0, 2, 3, 1) if pixels.shape[1] == 3 else pixels[:, 0]


def sheet(x: Tensor, spec: Spec, columns: int | None = None) -> Pixels:
    """Images ``(N, C, H, W)`` side by side, row by row, in nearly a square unless ``columns`` is given."""
    pixels = to_pixels(x, spec)
    n, height, width = pixels.shape[:3]
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    result = np.full(
        (rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, *pixels.shape[3:]), 255, np.uint8
    )
    for i, image in enumerate(pixels):
        top, left = _GAP + i // columns * (height + _GAP), _GAP + i % columns * (width + _GAP)
        result[top : top + height, left : left + width] = image
    return result


def side_by_side(spec: Spec, originals: Tensor, *versions: Tensor, columns: int = 8) -> Pixels:
    """Rows of originals, each above the rows of their other versions."""
    columns = min(columns, len(originals))
    missing = -len(originals) % columns
    blank = originals.new_full((missing, *originals.shape[1:]), spec.discrete_levels - 1)
    rows = [torch.cat([images.to(originals), blank]).split(columns) for images in (originals, *versions)]
    return sheet(torch.cat([row for pair in zip(*rows, strict=True) for row in pair]), spec, columns=columns)


def with_key(pixels: Pixels, key: Mapping[str, tuple[int, int, int]]) -> Pixels:
    """Colors ``(H, W, 3)`` enlarged by a whole factor, above a key that says what each color means."""
    factor = _factor(pixels)
    enlarged = pixels.repeat(factor, 0).repeat(factor, 1)
    line, font = 26, ImageFont.load_default(16)
    width = max(enlarged.shape[1], *(int(font.getlength(name)) + 60 for name in key))
    image = Image.new("RGB", (width, enlarged.shape[0] + line * len(key) + 20), (250, 250, 250))
    image.paste(Image.fromarray(enlarged))
    draw = ImageDraw.Draw(image)
    for i, (name, color) in enumerate(key.items()):
        top = enlarged.shape[0] + 12 + i * line
        draw.rectangle((12, top, 30, top + 16), fill=color, outline=(90, 90, 90))
        draw.text((42, top), name, fill=(30, 30, 30), font=font)
    return np.asarray(image)


def _factor(pixels: Pixels) -> int:
    """What a picture of tiny images is enlarged by."""
    return max(1, _ENLARGED // max(pixels.shape[:2]))


def write_png(path: Path, pixels: Pixels, *, enlarge: bool = True) -> None:
    """Write a sheet, whole or not at all; sheets of tiny images are enlarged by a whole factor."""
    factor = _factor(pixels) if enlarge else 1
    enlarged = pixels.repeat(factor, 0).repeat(factor, 1)
    with replacing(path) as temporary:
        Image.fromarray(enlarged).save(temporary, format="PNG", optimize=True)
