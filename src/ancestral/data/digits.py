"""The 8x8 digits that come with scikit-learn: 1797 images of 17 gray levels (Alpaydin & Kaynak, 1998)."""

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ancestral.data.pictures import Pictures
from ancestral.data.pixels import to_image

LEVELS = 17


def digits() -> Pictures:
    """All digits, in one split, at their own levels 0..16."""
    table = _table()
    x = table[:, :-1].reshape(-1, 1, 8, 8)
    labels = table[:, -1].astype(np.int64)
    return Pictures(
        source="digits",
        names=tuple(str(i) for i in range(len(x))),
        read=lambda i: to_image(x[i, 0], LEVELS),
        given=np.zeros(len(x), np.int8),
        key=hashlib.sha256(x.tobytes() + labels.tobytes()).hexdigest(),
        labels=labels,
        classes=tuple("0123456789"),
        levels=LEVELS,
        array=x,
    )


def _table() -> NDArray[np.uint8]:
    """A row for each image, 64 levels and its class: scikit-learn's file, as its import takes a second."""
    found = importlib.util.find_spec("sklearn")
    file = Path(found.origin if found and found.origin else "").parent / "datasets/data/digits.csv.gz"
    if file.is_file():
        return np.loadtxt(file, np.uint8, delimiter=",")
    from sklearn.datasets import load_digits  # noqa: PLC0415  # wherever it has it

    data = load_digits()
    return np.column_stack([data.data, data.target]).astype(np.uint8)
