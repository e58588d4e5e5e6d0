"""Code indices as colors, which say that two indices differ and nothing more."""

import numpy as np
import numpy.typing as npt

from ancestral.media.pixels import Pixels

_LINE, _STRIP, _GAP = 480, 8, 2
"""Codes on a line of a sequence, and the pixels of a line's height and of the gap below it."""


def tiles(maps: npt.NDArray[np.integer]) -> Pixels:
    """Maps of indices ``(N, M, h, w)`` as colors ``(N, H, W, 3)``, those of one example side by side.

    Maps of one row are sequences, which are broken into lines as text is.
    """
    colored = colors(maps)
    if maps.shape[2] == 1:
        colored = _lines(colored)
    beside = np.pad(colored, ((0, 0), (0, 0), (0, 0), (0, 1), (0, 0)), constant_values=255)
    return np.concatenate(list(beside.swapaxes(0, 1)), axis=2)[:, :, :-1]


def colors(indices: npt.NDArray[np.integer]) -> Pixels:
    """A color for each index, the same wherever it stands; those of neighbors are far apart.

    Hue, saturation and value advance by irrational parts of their ranges, so that they never come back
    together.
    """
    i = indices[..., None].astype(np.float64)
    hue, saturation, value = np.moveaxis(
        (i * (0.61803399, 0.75487767, 0.56984029) + (0.58, 0.5, 0.8)) % 1.0, -1, 0
    )
    saturation, value = 0.4 + 0.5 * saturation, 0.45 + 0.5 * value
    # Red, green and blue are a trapezoid of the hue each, a third of the circle apart.
    distance = (hue[..., None] * 6 + (5, 3, 1)) % 6
    shade = np.clip(np.minimum(distance, 4 - distance), 0, 1)
    return np.rint(255 * value[..., None] * (1 - saturation[..., None] * shade)).astype(np.uint8)


def _lines(colored: Pixels) -> Pixels:
    """Sequences ``(N, M, 1, T, 3)`` broken into lines, from top to bottom."""
    n, m, _, length, _ = colored.shape
    width = min(length, _LINE)
    count = -(-length // width)
    padded = np.pad(
        colored, ((0, 0), (0, 0), (0, 0), (0, count * width - length), (0, 0)), constant_values=255
    )
    lines = padded.reshape(n, m, count, 1, width, 3).repeat(_STRIP, 3)
    spaced = np.pad(lines, ((0, 0), (0, 0), (0, 0), (0, _GAP), (0, 0), (0, 0)), constant_values=255)
    return spaced.reshape(n, m, -1, width, 3)[:, :, :-_GAP]
