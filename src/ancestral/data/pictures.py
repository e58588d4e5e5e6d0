"""What a source hands over: images that are still to be decoded, with their names, labels and splits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ancestral.data.source import Source

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


@dataclass(frozen=True, kw_only=True)
class Pictures(Source):
    """N images of a source."""

    read: Callable[[int], Image.Image]
    """Opens the i-th image; may raise whatever Pillow raises. Called from several threads."""
    levels: int = 256
    """Levels that a value has in the source."""
    array: NDArray[np.uint8] | None = None
    """All images ``(N, 1, H, W)``, where the source has them as one array."""
