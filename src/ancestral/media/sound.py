"""Sounds as waveforms, each in a panel of its own."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ancestral.companding import to_amplitudes
from ancestral.media.figure import SERIES, Axis, Color, Figure, names_of
from ancestral.media.pixels import Pixels
from ancestral.spec import Spec

_WIDTH, _GAP, _LEFT, _TOP, _BOTTOM = 900, 14, 54, 36, 50
"""Pixels of all panels of a row, between panels, and around them."""


def picture(spec: Spec, x: Tensor, columns: int | None = None) -> Pixels:
    """Waveforms of sounds ``(N, C, T)``, row by row."""
    columns = min(len(x), columns or math.ceil(math.sqrt(len(x) / 4)))
    rows = [(part, SERIES[0]) for part in x.split(columns)]
    return _draw(spec, rows, columns, f"{len(x):,} {'sounds' if len(x) > 1 else 'sound'}")


def comparison(spec: Spec, originals: Tensor, versions: Sequence[Tensor], columns: int) -> Pixels:
    """Rows of originals, each above the rows of their versions, in colors of their own."""
    columns = min(len(originals), columns, 4)
    parts = zip(*(x.split(columns) for x in (originals, *versions)), strict=True)
    rows = [(part, color) for row in parts for part, color in zip(row, _colors(len(versions)), strict=True)]
    return _draw(spec, rows, columns, f"{len(originals):,} sounds", names_of(len(versions)))


def _colors(versions: int) -> list[Color]:
    return [SERIES[min(i, len(SERIES) - 1)] for i in range(1 + versions)]


def amplitudes(spec: Spec, x: Tensor) -> npt.NDArray[np.float64]:
    """What the values of sounds stand for: of levels, amplitudes in [-1, 1]."""
    if spec.levels is None:
        return np.nan_to_num(x.detach().cpu().double().numpy(), posinf=0.0, neginf=0.0)
    return to_amplitudes(x.detach().cpu().numpy(), spec)


def _draw(
    spec: Spec, rows: list[tuple[Tensor, Color]], columns: int, title: str, series: Sequence[str] = ()
) -> Pixels:
    channels, length = spec.shape
    width = max(110, (_WIDTH - _GAP * (columns - 1)) // columns)
    height = max(24, (160 if len(rows) == 1 else 64) // channels)
    drawn = [(amplitudes(spec, part), color) for part, color in rows]
    loudest = 1.0 if spec.levels is not None else max(float(np.abs(a).max()) for a, _ in drawn) or 1.0
    loudness = Axis(-loudest * 1.04, loudest * 1.04, height)
    seconds = length / spec.rate if spec.rate else None
    time = Axis(0.0, seconds or float(length), width)

    lane, row = height + 2, channels * (height + 2) + _GAP
    figure = Figure(_LEFT + columns * (width + _GAP) + 16, _TOP + len(rows) * row + _BOTTOM)
    for i, (sounds, color) in enumerate(drawn):
        for j, sound in enumerate(sounds):
            for c, wave in enumerate(sound):
                left, top = _LEFT + j * (width + _GAP), _TOP + i * row + c * lane
                figure.frame(left, top, width, height)
                figure.shade(left, top, waveform(wave, loudness, width), color)
                if j == 0:
                    figure.beside(left, top, loudness)
    bottom = _TOP + (len(rows) - 1) * row + channels * lane
    for j in range(columns):
        figure.below(_LEFT + j * (width + _GAP), bottom, time, "seconds" if seconds else "samples")
    long = f"{seconds:.3g} s at {spec.rate:,} Hz" if seconds else f"{length:,} samples"
    figure.title(f"{title} of {long}, amplitude over time", series)
    return figure.pixels


def waveform(wave: npt.NDArray[np.float64], axis: Axis, width: int) -> npt.NDArray[np.float64]:
    """The share ``(axis.pixels, width)`` to which a line through the values ``(T,)`` covers each pixel."""
    times = np.linspace(0, len(wave) - 1, max(len(wave), 4 * width + 1))
    fine = axis.pixels - axis.place(np.interp(times, np.arange(len(wave)), wave))
    edges = np.linspace(0, len(fine) - 1, width + 1).astype(int)
    upper, lower = (f.reduceat(fine, edges[:-1]) for f in (np.minimum, np.maximum))
    after = fine[edges[1:]]  # so that neighboring columns touch
    upper, lower = np.minimum(upper, after) - 0.6, np.maximum(lower, after) + 0.6
    rows = np.arange(axis.pixels)[:, None]
    return np.clip(np.minimum(lower, rows + 1) - np.maximum(upper, rows), 0, 1)
