"""The sheets of a run as data URIs, with the sizes that the page needs to enlarge them by whole factors.

Of sounds, those that lie beside their sheet are there to be played.
"""

import base64
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ancestral.clips import Clip, clips

_PLAIN = re.compile(r"samples-seed\d+(-class.*)?")
"""The names of sheets of a model as it is, and of classes."""
_PNG = b"\x89PNG\r\n\x1a\n"
_MOST_SOUNDS, _MOST_BYTES = 9, 750_000
"""What a sheet brings along at most: three of them make up 3 MB as base64."""


@dataclass(frozen=True, kw_only=True)
class Sound:
    """One .wav file of a run, embedded."""

    source: str
    """``data:audio/wav;base64,…``"""
    name: str
    """Which of its sheet it is."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One PNG of a run, embedded."""

    source: str
    """``data:image/png;base64,…``"""
    width: int
    height: int
    """Size in pixels."""
    stage: str = ""
    step: int = 0
    """Where in the training it was drawn; "" and 0 for a final picture."""
    sounds: tuple[Sound, ...] = ()
    """Some of what it shows, to be heard."""

    @property
    def versions(self) -> int:
        """Sounds that belong together: an original and what became of it."""
        return len({sound.name.partition(" ")[2] for sound in self.sounds})


def picture(path: Path, *, stage: str = "", step: int = 0, heard: bool = False) -> Picture | None:
    """The PNG at ``path``; None where there is none, or only a part of one.

    With ``heard`` it brings the sounds along that lie beside it.
    """
    data = path.read_bytes() if path.is_file() else b""
    if len(data) < 24 or not data.startswith(_PNG) or b"IEND" not in data[-12:]:
        return None
    width, height = struct.unpack(">II", data[16:24])
    sounds = _sounds(path.with_suffix("")) if heard else ()
    source = _uri("image/png", data)
    return Picture(source=source, width=width, height=height, stage=stage, step=step, sounds=sounds)


def _sounds(folder: Path) -> tuple[Sound, ...]:
    """The first sounds of a sheet, with all their versions, as many as there is room for."""
    there = clips(folder)
    numbered: dict[int, list[Clip]] = {}
    for clip in there:
        numbered.setdefault(clip.number, []).append(clip)
    chosen: list[Clip] = []
    left = _MOST_BYTES
    for versions in numbered.values():
        size = sum(there[clip].stat().st_size for clip in versions)
        # A long one makes room for shorter ones.
        if size <= left and len(chosen) + len(versions) <= _MOST_SOUNDS:
            left -= size
            chosen += versions
    return tuple(
        Sound(
            source=_uri("audio/wav", there[clip].read_bytes()), name=f"{clip.number + 1} {clip.name}".strip()
        )
        for clip in chosen
    )


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def over_time(folder: Path, kind: str) -> dict[str, list[tuple[int, Path]]]:
    """Each stage's sheets named ``STAGE-KIND-STEP.png`` as (step, path), in the order of the steps."""
    pattern = re.compile(rf"(?P<stage>.+)-{re.escape(kind)}-(?P<step>\d+)\.png")
    stages: dict[str, list[tuple[int, Path]]] = {}
    for path in sorted(folder.glob(f"*-{kind}-*.png")):
        if found := pattern.fullmatch(path.name):
            stages.setdefault(found["stage"], []).append((int(found["step"]), path))
    return {stage: sorted(sheets) for stage, sheets in stages.items()}


def latest(folder: Path, kind: str, order: list[str]) -> Picture | None:
    """The last whole sheet of a kind: of the latest stage in ``order`` that has one."""
    stages = over_time(folder, kind)
    for stage in sorted(stages, key=lambda name: order.index(name) if name in order else -1, reverse=True):
        for step, path in reversed(stages[stage]):
            if found := picture(path, stage=stage, step=step, heard=True):
                return found
    return None


def drawn(folder: Path) -> Picture | None:
    """The sheet that ``ancestral sample`` drew last of a model as it is, without truncation or the like."""
    return _newest(path for path in folder.glob("samples-*.png") if _PLAIN.fullmatch(path.stem))


def converted(folder: Path) -> Picture | None:
    """The sheet of conversions that ``ancestral convert`` or an evaluation wrote last."""
    return _newest(folder.glob("conversions*.png"))


def _newest(paths: Iterable[Path]) -> Picture | None:
    """The last written of these sheets that is whole."""
    ordered = sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return next((found for path in ordered if (found := picture(path, heard=True))), None)


def progression(sheets: list[tuple[int, Path]], stage: str, limit: int = 7) -> list[Picture]:
    """At most ``limit`` of the sheets, the first and the last among them, with the others spread evenly."""
    parts = max(min(limit, len(sheets)) - 1, 1)
    chosen = sorted({round(i * (len(sheets) - 1) / parts) for i in range(parts + 1)}) if sheets else []
    pictures = (picture(sheets[i][1], stage=stage, step=sheets[i][0]) for i in chosen)
    return [found for found in pictures if found]
