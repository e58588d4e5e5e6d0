"""From an image in any of Pillow's modes to integers of the shape and levels that a model is built for."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from ancestral.data.pictures import Pictures
from ancestral.data.source import UnusableError


@dataclass(frozen=True)
class Target:
    """What every image is brought to."""

    size: tuple[int, int]
    """Height and width."""
    resize: bool
    """Whether an image of another size is resized; otherwise it is unusable."""
    channels: Literal[1, 3]
    fit: Literal["crop", "stretch"]
    native: int
    """Levels of the source."""
    levels: int
    """Levels wanted, at most ``native``."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return (self.channels, *self.size)


class Room:
    """Room for so many pixels, which the images that are decoded at the same time share."""

    def __init__(self, pixels: int) -> None:
        self._pixels = self._free = pixels
        self._changed = threading.Condition()

    @contextmanager
    def of(self, image: Image.Image) -> Iterator[None]:
        """Wait until there is room for an image, and keep it inside the block. Any image fits alone."""
        taken = min(image.width * image.height, self._pixels)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= taken)
            self._free -= taken
        try:
            yield
        finally:
            with self._changed:
                self._free += taken
                self._changed.notify_all()


_MEMORY = Room(2**25)
"""Shared by all threads: about 300 MB, and three times that for the largest image alone."""
_STRIP = 2**20
"""Pixels of a transparent image that are laid on white at once."""
_REDUCED = frozenset({"JPEG", "MPO"})
"""Formats that are decoded at a lower resolution where that suffices."""


@contextmanager
def opened(pictures: Pictures, i: int) -> Iterator[Image.Image]:
    """The i-th image, not yet decoded. Raises UnusableError if it cannot be opened."""
    with _decoding():
        image = pictures.read(i)
    with image:
        if isinstance(image, ImageFile.ImageFile):
            # Keeps Pillow from mapping the file, which misreads TIFF with an orientation (Pillow 13.0).
            image.filename = ""
        if image.format not in _REDUCED:
            _check_pixels(image)
        yield image


def header(image: Image.Image) -> tuple[tuple[int, int], bool]:
    """Height and width as seen upright, and whether the image is gray; decodes only images with a palette."""
    with _decoding():
        width, height = image.size
        # Pillow turns TIFF by itself, and would decode a PNG to look for a tag at its end.
        tagged = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
        if tagged and image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8):
            width, height = height, width
        return (height, width), _is_gray(image)


def decode(image: Image.Image, target: Target) -> NDArray[np.uint8]:
    """The image as integers ``(C, H, W)``. Raises UnusableError."""
    with _decoding():
        if target.resize and image.format in _REDUCED:
            side = 2 * max(
                target.size
            )  # twice the size wanted: decodes photos several times faster and cannot be seen
            image.draft(None, (side, side))  # None keeps the mode
        _check_pixels(image)
    with _MEMORY.of(image):
        return _decoded(image, target)


def _decoded(image: Image.Image, target: Target) -> NDArray[np.uint8]:
    """What ``decode`` returns, without a copy of the whole image that is not needed."""
    mode: Literal["L", "RGB"] = "L" if target.channels == 1 else "RGB"
    with _decoding():
        image.load()
        if image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            ImageOps.exif_transpose(image, in_place=True)
    upright = _eight_bits(image, mode)
    upright = upright if upright.mode == mode else upright.convert(mode)
    height, width = target.size
    if upright.size != (width, height):
        if not target.resize:
            raise UnusableError(f"is {upright.height}x{upright.width}, not {height}x{width}")
        method = Image.Resampling.LANCZOS
        crop = target.fit == "crop"
        upright = (
            ImageOps.fit(upright, (width, height), method)
            if crop
            else upright.resize((width, height), method)
        )
    x = np.asarray(upright)
    x = x[None] if target.channels == 1 else x.transpose(2, 0, 1)
    if target.native < 256:
        x = ((x.astype(np.uint16) * (target.native - 1) + 127) // 255).astype(np.uint8)
    return quantize(x, target.native, target.levels)


def quantize(x: NDArray[np.uint8], native: int, levels: int) -> NDArray[np.uint8]:
    """Values 0..native-1 to fewer levels, x * levels // native."""
    return x if levels >= native else (np.arange(native) * levels // native).astype(np.uint8)[x]


def to_image(x: NDArray[np.uint8], native: int) -> Image.Image:
    """A gray image ``(H, W)`` of 0..native-1 as 0..255; ``decode`` takes this back exactly."""
    return Image.fromarray(
        x
        if native == 256
        else ((x.astype(np.uint16) * 255 + (native - 1) // 2) // (native - 1)).astype(np.uint8)
    )


@contextmanager
def _decoding() -> Iterator[None]:
    try:
        yield
    except (MemoryError, UnusableError):
        raise
    except UnidentifiedImageError:
        raise UnusableError("not an image that can be read") from None
    except Image.DecompressionBombError:
        raise UnusableError(f"has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels") from None
    except Exception as error:  # Pillow's decoders raise nearly every type on broken files
        reason = str(error).strip().splitlines()
        raise UnusableError(reason[0] if reason else type(error).__name__) from error


def _check_pixels(image: Image.Image) -> None:
    """Raise UnusableError for an image of more pixels than Pillow takes for harmless."""
    pixels, most = image.width * image.height, Image.MAX_IMAGE_PIXELS
    if most is not None and pixels > most:
        raise UnusableError(f"has {pixels:,} pixels, more than {most:,}")


def _is_gray(image: Image.Image) -> bool:
    if image.mode == "P":
        with _MEMORY.of(image):  # which is decoded for it
            palette = np.asarray(image.getpalette("RGB")).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in {"1", "L", "LA", "La", "I", "F"} or image.mode.startswith("I;16")


def _eight_bits(image: Image.Image, mode: Literal["L", "RGB"]) -> Image.Image:
    """The image in a mode that converts to ``mode`` without loss of range, on white where transparent."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        x = np.asarray(image).astype(np.int64)
        if x.size and (x.min() < 0 or x.max() > 65535):
            raise UnusableError(f"has values {x.min()}..{x.max()}, not 0..65535")
        return Image.fromarray(((x + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        y = np.asarray(image)
        if not ((y >= 0) & (y <= 1)).all():
            raise UnusableError(f"has values {y.min():g}..{y.max():g}, not 0..1")
        return Image.fromarray(np.rint(y * 255).astype(np.uint8))
    if image.has_transparency_data:
        flat, rows = Image.new(mode, image.size), max(1, _STRIP // image.width)
        for top in range(0, image.height, rows):
            strip = image.crop((0, top, image.width, min(top + rows, image.height))).convert("RGBA")
            ground = Image.new("RGBA", strip.size, "white")
            flat.paste(Image.alpha_composite(ground, strip).convert(mode), (0, top))
        return flat
    return image
