"""What the .wav files of a sheet's sounds are called, which lie in a folder of its name."""

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Clip:
    """A sound of a sheet: which one, and which version of it."""

    number: int
    """From 0 on."""
    name: str = ""
    """``original``, ``reconstruction``, ...; "" where there is but one version."""

    def path(self, folder: Path, count: int) -> Path:
        """Its file, of ``count`` in the folder.

        >>> Clip(3, "level 1 of 2").path(Path("samples/levels"), 32).name
        'levels-03-level-1-of-2.wav'
        """
        ending = re.sub(r"[^a-z0-9]+", "-", f" {self.name.lower()}") if self.name else ""
        return folder / f"{folder.name}-{self.number:0{len(str(count - 1))}d}{ending}.wav"


def clips(folder: Path) -> dict[Clip, Path]:
    """The sounds in a folder, by number, originals and reconstructions first; none without a folder."""
    pattern = re.compile(rf"{re.escape(folder.name)}-(?P<number>\d+)(?:-(?P<name>[a-z0-9-]+))?\.wav")
    names = ((path, pattern.fullmatch(path.name)) for path in folder.glob("*.wav"))
    found = {Clip(int(m["number"]), (m["name"] or "").replace("-", " ")): path for path, m in names if m}
    first = {"original": 0, "reconstruction": 1}
    order = sorted(found, key=lambda clip: (clip.number, first.get(clip.name, 2), clip.name))
    return {clip: found[clip] for clip in order}
