"""Rows of a table: a histogram of each column, and each pair of columns as points."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ancestral.columns import named
from ancestral.media.figure import SERIES, Axis, Figure, names_of
from ancestral.media.pixels import Pixels
from ancestral.spec import Spec

_MOST = 6
"""Columns that are shown."""
_MARGINALS, _ACROSS = 100, 6
"""Columns whose histograms alone are shown, and how many stand in a row."""
_LEFT, _TOP, _BOTTOM, _GAP = 76, 38, 50, 8
"""Pixels around and between the panels."""
Values = npt.NDArray[np.float64]


def picture(spec: Spec, x: Tensor, names: Sequence[str] = ()) -> Pixels:
    """The rows ``(N, D)``, by the first few columns."""
    return _draw(spec, [x], names)


def comparison(
    spec: Spec,
    originals: Tensor,
    versions: Sequence[Tensor],
    names: Sequence[str] = (),
    series: Sequence[str] = (),
) -> Pixels:
    """Rows and their versions, or samples, over each other in colors of their own."""
    return _draw(spec, [originals, *versions], names, series or names_of(len(versions)))


def marginals(tables: Sequence[Tensor], names: Sequence[str], series: Sequence[str]) -> Pixels:
    """A histogram of each column, of several tables over each other."""
    dims = tables[0].shape[1]
    shown = min(dims, _MARGINALS)
    names = named(names, shown)
    sets = [_finite(x[:, :shown]) for x in tables]
    across, side, row = min(shown, _ACROSS), 150, 150 + _BOTTOM
    figure = Figure(max(2 * _GAP + across * (side + 2 * _GAP), 500), _TOP + -(-shown // across) * row)
    for i, name in enumerate(names):
        left, top = 2 * _GAP + i % across * (side + 2 * _GAP), _TOP + i // across * row
        figure.frame(left, top, side, side)
        axis = _axis([values[:, i] for values in sets], side)
        edges, heights = _densities(None, [values[:, i] for values in sets], axis)
        for k, color in zip(range(len(sets)), SERIES, strict=False):
            figure.shade(left, top, bars(heights[k], edges, axis) * 0.55, color)
        figure.below(left, top + side, axis, name)
    figure.title(_shown(len(tables[0]), shown, dims), series)
    return figure.pixels


def _draw(spec: Spec, tables: Sequence[Tensor], names: Sequence[str], series: Sequence[str] = ()) -> Pixels:
    (dims,) = spec.shape
    shown = min(dims, _MOST)
    names = named(names, shown)
    sets = [_finite(x[:, :shown]) for x in tables]
    side = min(max(900 // shown, 150), 420)
    axes = [_axis([values[:, i] for values in sets], side) for i in range(shown)]
    size = shown * (side + _GAP)
    figure = Figure(max(_LEFT + size + 16, 500), _TOP + size + _BOTTOM)
    densities = [
        _densities(spec.levels, [values[:, i] for values in sets], axis) for i, axis in enumerate(axes)
    ]
    for i, vertical in enumerate(axes):
        for j, horizontal in enumerate(axes):
            left, top = _LEFT + j * (side + _GAP), _TOP + i * (side + _GAP)
            figure.frame(left, top, side, side)
            for k, (values, color) in enumerate(zip(sets, SERIES, strict=False)):
                if i == j:
                    edges, heights = densities[i]
                    cover = bars(heights[k], edges, horizontal) * (0.55 if len(sets) > 1 else 0.85)
                else:
                    cover = scatter(values[:, j], values[:, i], horizontal, vertical)
                figure.shade(left, top, cover, color)
            if j == 0:
                figure.beside(left, top, vertical, names[i])
            if i == shown - 1:
                figure.below(left, top + side, horizontal, names[j])
    figure.title(_shown(len(tables[0]), shown, dims), series)
    return figure.pixels


def _shown(rows: int, shown: int, dims: int) -> str:
    """What a picture shows of a table, in words."""
    of = f"{shown} of {dims} columns" if shown < dims else f"{dims} column{'s' * (dims > 1)}"
    return f"{rows:,} row{'s' * (rows > 1)}, {of}"


def _finite(x: Tensor) -> Values:
    values = x.detach().cpu().double().numpy()
    return values[np.isfinite(values).all(1)]


def _axis(sets: Sequence[Values], pixels: int) -> Axis:
    """All of the first set, and all but the outermost hundredths of the others."""
    found = [
        (v.min(), v.max()) if i == 0 else np.quantile(v, (0.01, 0.99)) for i, v in enumerate(sets) if len(v)
    ]
    low, high = (min(a for a, _ in found), max(b for _, b in found)) if found else (0.0, 0.0)
    return Axis.around(float(low), float(high), pixels)


def _densities(levels: int | None, sets: Sequence[Values], axis: Axis) -> tuple[Values, Values]:
    """The edges of a histogram's bars, and how high they are for each set: densities up to 1.

    There is a bar for each level where these are few, else as many as the examples make smooth.
    """
    if levels is not None and axis.high - axis.low <= 40:
        edges = np.arange(np.floor(axis.low), np.ceil(axis.high) + 2) - 0.5
    else:
        edges = np.linspace(axis.low, axis.high, int(np.clip(len(sets[0]) ** 0.5, 8, 40)) // 2 * 2 + 2)
    heights = np.stack([np.histogram(values, edges)[0] / max(len(values), 1) for values in sets])
    return edges, heights / (heights.max() or 1.0)


def bars(heights: Values, edges: Values, axis: Axis) -> Values:
    """The share to which bars of these heights, up to 1, cover each pixel of a square."""
    middles = axis.low + (np.arange(axis.pixels) + 0.5) * (axis.high - axis.low) / axis.pixels
    bar = np.clip(np.searchsorted(edges, middles, side="right") - 1, 0, len(heights) - 1)
    return np.clip(heights[bar] * 0.92 * axis.pixels - np.arange(axis.pixels)[::-1, None], 0, 1)


def scatter(x: Values, y: Values, horizontal: Axis, vertical: Axis) -> Values:
    """The share to which points cover each pixel, more where there are many."""
    radius = 1.6 if len(x) > 300 else 2.6
    reach = int(np.ceil(radius))
    columns, rows = np.floor(horizontal.place(x)).astype(int), np.floor(vertical.place(y)).astype(int)
    inside = (columns >= 0) & (columns < horizontal.pixels) & (rows >= 0) & (rows < vertical.pixels)
    where = (vertical.pixels - 1 - rows[inside]) * horizontal.pixels + columns[inside]
    pixels, counts = np.unique(where, return_counts=True)
    rows, columns = np.divmod(pixels, horizontal.pixels)
    opacity = min(0.9, max(0.12, 300 / max(len(x), 1)))
    # Each point lets a part of the light through, which adds up in the logarithm.
    light = np.zeros((vertical.pixels + 2 * reach, horizontal.pixels + 2 * reach))
    for i in range(-reach, reach + 1):
        for j in range(-reach, reach + 1):
            cover = np.clip(radius + 0.5 - np.hypot(i, j), 0, 1) * opacity
            light[rows + reach + i, columns + reach + j] += counts * np.log1p(-cover)
    return 1 - np.exp(light[reach:-reach, reach:-reach])
