"""Tables that scikit-learn brings: ``table:patches``, of its two photographs, ``table:iris``, …."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ancestral.data.pictures import TEST, TRAIN, VALIDATION

Bundled = tuple[tuple[str, ...], NDArray[np.float32], NDArray[np.int8] | None]
"""Names of the columns, rows, and the split of each row where the table has splits of its own."""

_SIDE, _STRIDE = 8, 2


def patches() -> Bundled:
    """Patches of natural images in the manner of BSDS300, 63 columns, with splits of their own.

    Grey 8x8 patches, every second place each way, of the photographs ``china`` and ``flower``. As in the data
    set of Zoran & Weiss, 2011, that density estimators are compared on: noise of one level is added, levels
    are divided by 256, the patch's mean is taken off, and so one of the 64 pixels, the last, is left out. The
    left 60 % of each photograph train, the next 20 % validate, the right 20 % test.
    """
    from sklearn.datasets import load_sample_images  # noqa: PLC0415  # takes long

    random, rows, splits = np.random.default_rng(0), [], []
    for image in load_sample_images().images:
        grey = image.astype(np.float64) @ [0.299, 0.587, 0.114]
        width = grey.shape[1]
        cuts = [0, int(0.6 * width), int(0.8 * width), width]
        for split, (left, right) in zip((TRAIN, VALIDATION, TEST), pairwise(cuts), strict=True):
            windows = np.lib.stride_tricks.sliding_window_view(grey[:, left:right], (_SIDE, _SIDE))
            own = windows[::_STRIDE, ::_STRIDE].reshape(-1, _SIDE * _SIDE)
            noisy = (own + random.uniform(size=own.shape)) / 256
            rows.append((noisy - noisy.mean(1, keepdims=True))[:, :-1])
            splits.append(np.full(len(own), split, np.int8))
    names = tuple(f"pixel{i + 1}" for i in range(_SIDE * _SIDE - 1))
    return names, np.concatenate(rows).astype(np.float32), np.concatenate(splits)


def _of(name: str) -> Callable[[], Bundled]:
    def load() -> Bundled:
        from sklearn import datasets  # noqa: PLC0415  # takes long

        found = getattr(datasets, f"load_{name}")()
        columns = tuple(column.replace(" ", "_").partition("_(")[0] for column in found.feature_names)
        return columns, np.asarray(found.data, np.float32), None

    return load


BUNDLED: dict[str, Callable[[], Bundled]] = {
    "patches": patches,
    "iris": _of("iris"),
    "wine": _of("wine"),
    "breast-cancer": _of("breast_cancer"),
}
"""By the name after ``table:``; a file of that name is written ./patches."""
