"""What a source hands over: images that are still to be decoded, with their names, labels and splits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SPLITS: Final = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)
SPLIT_NAMES: Final = {
    "train": TRAIN,
    "validation": VALIDATION,
    "val": VALIDATION,
    "valid": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
}
"""Names that sources give to their splits."""
FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
"""Formats that Pillow may try: no format that starts another program."""


@dataclass(frozen=True)
class Pictures:
    """N images of a source, in an order that is always the same."""

    source: str
    names: tuple[str, ...]
    """What each image is called in the source."""
    read: Callable[[int], Image.Image]
    """Opens the i-th image; may raise whatever Pillow raises. Called from several threads."""
    given: NDArray[np.int8]
    """The split ``(N,)`` that the source puts each image in; TRAIN where it has none."""
    key: str
    """Changes when the images, labels or splits of the source change."""
    labels: NDArray[np.int64] | None = None
    """Classes ``(N,)``; -1 where the source keeps one secret."""
    classes: tuple[str, ...] = ()
    levels: int = 256
    """Levels that a value has in the source."""
    array: NDArray[np.uint8] | None = None
    """All images ``(N, 1, H, W)``, where the source has them as one array."""
    notes: tuple[str, ...] = ()
    """What of the source is left out, "name: reason"."""

    def __len__(self) -> int:
        return len(self.names)

    def has(self, split: int) -> bool:
        """Whether the source itself says which examples form this split."""
        return bool((self.given == split).any())

    def labels_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """The labels of some images; None where the source has none or does not tell all of them."""
        if self.labels is None:
            return None
        labels = self.labels[rows]
        return None if (labels < 0).any() else labels
