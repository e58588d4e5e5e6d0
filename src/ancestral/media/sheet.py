"""Sheets: pictures of examples, and of sounds what there is to hear."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ancestral.clips import clips
from ancestral.media.pixels import Pixels, write_png
from ancestral.media.wav import write_sounds
from ancestral.spec import Spec


@dataclass(frozen=True, eq=False)
class Sheet:
    """A picture, and the examples that it shows."""

    pixels: Pixels
    spec: Spec
    shown: Mapping[str, Tensor]
    """Examples ``(N, *spec.shape)`` by what they are: ``original``, ``version``; "" for the only ones."""
    lengths: Tensor | None = None
    """How many values of each sound are its own, ``(N,)``; all if None."""


def write_sheet(place: Path, sheet: Sheet | Pixels) -> None:
    """Write a sheet as a PNG, and its sounds as .wav files into a folder of the same name beside it.

    Sounds of another sheet of that name are removed.
    """
    pixels = sheet.pixels if isinstance(sheet, Sheet) else sheet
    write_png(place, pixels)
    folder = place.with_suffix("")
    if isinstance(sheet, Sheet) and sheet.spec.domain == "sound" and sheet.spec.rate is not None:
        write_sounds(folder, sheet.spec, sheet.shown, sheet.lengths)
        return
    for path in clips(folder).values():
        path.unlink()
