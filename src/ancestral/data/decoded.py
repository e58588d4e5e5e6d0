"""Images of a source that are decoded into one array, in any order and from several threads."""

import numpy as np
from PIL import Image

from ancestral.data.pictures import Pictures
from ancestral.data.pixels import Target, decode, opened
from ancestral.data.progress import in_chunks
from ancestral.data.source import UnusableError


class Decoded:
    """Room for every image of a source, and which of them are there.

    Args:
        pictures: the source.
        target: what every image is brought to.
    """

    def __init__(self, pictures: Pictures, target: Target) -> None:
        self.target = target
        self.x = np.zeros((len(pictures), *target.shape), np.uint8)
        """``(N, C, H, W)``; an image that is not there, or cannot be used, is zero."""
        self.skipped: dict[int, str] = {}
        """The reason for each image that cannot be used."""
        self.done = np.zeros(len(pictures), np.bool_)
        self._pictures = pictures

    def put(self, i: int, image: Image.Image) -> None:
        """Decode image ``i``, which is open."""
        try:
            self.x[i] = decode(image, self.target)
        except UnusableError as error:
            self.skipped[i] = str(error)
        self.done[i] = True

    def read_rest(self) -> None:
        """Open and decode every image that is not there yet, with progress."""
        rest = np.flatnonzero(~self.done).tolist()
        for _ in in_chunks(lambda i: self.read(rest[i]), 0, len(rest), 512, "decoding images"):
            pass

    def read(self, i: int) -> None:
        """Open and decode image ``i``."""
        try:
            with opened(self._pictures, i) as image:
                self.put(i, image)
        except UnusableError as error:
            self.skipped[i] = str(error)
            self.done[i] = True
