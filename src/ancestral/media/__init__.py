"""Pictures and files of examples, by the domain of their spec: the one place that draws and writes them."""

from ancestral.media.examples import comparison, frames, marginals, picture, to_pixels, write_examples
from ancestral.media.film import write_film
from ancestral.media.pixels import Pixels, grid, with_key, write_png
from ancestral.media.sheet import Sheet, write_sheet
from ancestral.media.wav import write_sounds, write_wav

__all__ = [
    "Pixels",
    "Sheet",
    "comparison",
    "frames",
    "grid",
    "marginals",
    "picture",
    "to_pixels",
    "with_key",
    "write_examples",
    "write_film",
    "write_png",
    "write_sheet",
    "write_sounds",
    "write_wav",
]
