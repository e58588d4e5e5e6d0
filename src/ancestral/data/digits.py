"""The 8x8 digits that come with scikit-learn: 1797 images of 17 gray levels (Alpaydin & Kaynak, 1998)."""

import hashlib

import numpy as np

from ancestral.data.pictures import Pictures
from ancestral.data.pixels import to_image

LEVELS = 17


def digits() -> Pictures:
    """All digits, in one split, at their own levels 0..16."""
    from sklearn.datasets import load_digits  # noqa: PLC0415  # takes a second to import

    data = load_digits()
    x = data.images.astype(np.uint8)[:, None]
    labels = data.target.astype(np.int64)
    return Pictures(
        source="digits",
        names=tuple(str(i) for i in range(len(x))),
        read=lambda i: to_image(x[i, 0], LEVELS),
        given=np.zeros(len(x), np.int8),
        key=hashlib.sha256(x.tobytes() + labels.tobytes()).hexdigest(),
        labels=labels,
        classes=tuple(str(name) for name in data.target_names),
        levels=LEVELS,
        array=x,
    )
