"""Words above the columns of a sheet."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ancestral.media.letters import font, shortened
from ancestral.media.pixels import Pixels, enlarged

_LETTERS, _STRIP = 14, 24
"""Heights of the letters and of what they stand on, in pixels."""


def with_heads(sheet: Pixels, heads: Sequence[str]) -> Pixels:
    """A sheet of as many columns as there are heads, enlarged by a whole factor, below its heads.

    A head that is wider than its column is cut short.
    """
    large = enlarged(sheet)
    width = large.shape[1] / len(heads)
    strip = np.full((_STRIP, *large.shape[1:]), large[0, 0], np.uint8)  # of the color between the tiles
    image = Image.fromarray(np.concatenate([strip, large]))
    draw = ImageDraw.Draw(image)
    for i, head in enumerate(heads):
        name = head.encode(errors="replace").decode()  # of a folder: its bytes need not be UTF-8
        text = shortened(name, int(width) - 4, _LETTERS)
        letters = font(text, _LETTERS)
        draw.text(((i + 0.5) * width, _STRIP / 2), text, fill="#1e1e1e", font=letters, anchor="mm")
    return np.asarray(image)
