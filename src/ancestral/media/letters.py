"""The letters of pictures: Pillow's own, and for names that these cannot write those of Matplotlib."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def font(text: str, size: int) -> Font:
    """A font with the letters of a text, of a height in pixels: ASCII, else Latin, Greek, Cyrillic, Arabic.

    >>> [font(name, 12).getname()[0] for name in ("Anna", "Zoë")]
    ['Aileron', 'DejaVu Sans']
    """
    known = all(letter.isascii() or letter in "…·±°" for letter in text)
    return ImageFont.load_default(size) if known else _other(size)


@cache
def _other(size: int) -> Font:
    found = find_spec("matplotlib")  # not imported for that
    assert found is not None
    assert found.origin is not None
    fonts = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(fonts / "DejaVuSans.ttf", size)


def shortened(text: str, width: int, size: int) -> str:
    """The text, or as much of it as the width has room for in letters of a size."""
    letters = font(text, size)
    if letters.getlength(text) <= width:
        return text
    return next((t for i in range(len(text), 0, -1) if letters.getlength(t := text[:i] + "…") <= width), "…")
