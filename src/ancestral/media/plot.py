"""Curves as a picture, drawn by Matplotlib."""

from collections.abc import Mapping, Sequence

import numpy as np

from ancestral.media.pixels import Pixels


def plot(
    panels: Mapping[str, Sequence[float]], places: Sequence[float], *, x: str, labels: Sequence[str] = ()
) -> Pixels:
    """A curve in a panel of its own for each name, over the same places.

    Args:
        panels: the values of each curve, by what stands above it.
        places: where on the horizontal axis the values are, from left to right.
        x: what that axis is.
        labels: what stands at the places; their numbers if there are none.

    >>> plot({"precision": [0.9, 0.8], "recall": [0.5, 0.7]}, [0, 1], x="share").ndim
    3
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - half a second
    from matplotlib.figure import Figure  # noqa: PLC0415

    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4 * columns, 2.7 * rows), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for i, (name, values) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.plot(places, values, marker="o", color="#3168b2")
        axes.set_title(name, fontsize=11)
        axes.set_xticks(list(places), list(labels) or [f"{place:g}" for place in places])
        axes.margins(x=0.08, y=0.2)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if i >= len(panels) - columns:
            axes.set_xlabel(x)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
