"""Films: pictures one after another, as .webp or .gif."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ancestral.files import replacing
from ancestral.media.pixels import Pixels, enlarged

_MILLISECONDS = 60
"""That each picture is shown."""


def write_film(path: Path, pictures: Sequence[Pixels]) -> Path:
    """Write pictures of one size as a film without an end; where it is. The ending says the format."""
    first, *rest = [Image.fromarray(enlarged(picture)) for picture in pictures]
    kind = path.suffix.removeprefix(".").upper()
    with replacing(path) as temporary, temporary.open("wb") as file:
        how = {"quality": 85, "method": 4} if kind == "WEBP" else {"optimize": False}
        first.save(file, kind, save_all=True, append_images=rest, duration=_MILLISECONDS, loop=0, **how)
    return path
