"""Recordings of a source, which are still to be read, and the reading of one file.

Whatever the file, a recording becomes one channel (the mean of all) at one rate, before it gets levels.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ancestral.data.source import Source, UnusableError
from ancestral.errors import UserError

_BLOCK = 2**22
"""Values of a file that are read at once."""
_RATES: Final = (1000, 768_000)
"""Hz. A resampler of rates further apart takes all memory."""
_THRESHOLD, _KEPT = 0.01, 0.05
"""Share of the peak (-40 dB) below which there is silence, and seconds of it that stay at both ends."""


@dataclass(frozen=True, kw_only=True)
class Recordings(Source):
    """N recordings of a source."""

    read: Callable[[int, int], NDArray[np.float32]]
    """The i-th recording at a rate (Hz), amplitudes ``(T,)``; may raise UnusableError. Called from several
    threads."""
    prompts: tuple[str, ...] | None = None
    """What is said in each recording: no two splits have the same. None: the samples decide."""


def check_readers() -> None:
    """Raise UserError unless files of sounds can be read."""
    _soundfile()


def read_sound(path: str | os.PathLike[str], rate: int) -> NDArray[np.float32]:
    """The mean of a file's channels at ``rate`` (Hz), amplitudes ``(T,)``.

    Raises:
        UnusableError: it is no sound that can be read, has no samples, or some that are NaN or infinite.
        UserError: the packages that read and resample sounds are not installed.
    """
    return opened(path, rate)[0]


def opened(path: str | os.PathLike[str], rate: int) -> tuple[NDArray[np.float32], int, int]:
    """What ``read_sound`` gives, and the rate and the channels of the file. Raises like it."""
    soundfile = _soundfile()
    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:  # bytes: names need not be UTF-8
            own, channels = int(file.samplerate), int(file.channels)
            size = max(1, _BLOCK // channels)
            blocks = file.blocks(blocksize=size, dtype="float32", always_2d=True)
            amplitudes = resampled(map(_mixed, blocks), own, rate)
    except (OSError, RuntimeError, ValueError) as error:  # soundfile's own are RuntimeErrors
        reason = str(error).rpartition(": ")[2].rstrip(".") or "damaged"
        with contextlib.suppress(OSError):  # of a link that leads nowhere
            reason = reason if Path(path).stat().st_size else "an empty file"
        raise UnusableError(f"not a sound that can be read ({reason})") from None
    return amplitudes, own, channels


def _mixed(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of the channels ``(T, C)``; where it is no number, ``resampled`` says so."""
    with np.errstate(all="ignore"):
        return block.mean(1)


def resampled(blocks: Iterator[NDArray[np.float32]], own: int, rate: int) -> NDArray[np.float32]:
    """Consecutive blocks of a recording at the rate ``own`` as one at ``rate`` (both in Hz), ``(T,)``.

    Raises:
        UnusableError: there are no samples, some are NaN or infinite, or the rate is none of sounds.
        UserError: the package that resamples is not installed.
    """
    if not _RATES[0] <= own <= _RATES[1]:
        raise UnusableError(f"has a rate of {own:,} Hz, not {_RATES[0]:,} to {_RATES[1]:,}")
    stream = None if own == rate else _soxr().ResampleStream(own, rate, 1, dtype="float32", quality="HQ")
    parts = []
    for block in blocks:
        if not np.isfinite(block).all():
            raise UnusableError("has samples that are NaN or infinite")
        parts.append(block if stream is None else stream.resample_chunk(block))
    if stream is not None and parts:
        parts.append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    if not any(map(len, parts)):
        raise UnusableError("has no samples" if not parts else f"is shorter than a sample at {rate:,} Hz")
    return np.concatenate(parts)


def trimmed(amplitudes: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """A recording without the silence at its ends: what stays below -40 dB of its peak, but .05 s of it.

    >>> trimmed(np.float32([0] * 9 + [1, 0, -1] + [0] * 9), rate=40).astype(int).tolist()
    [0, 0, 1, 0, -1, 0, 0]
    """
    loud = np.flatnonzero(np.abs(amplitudes) >= _THRESHOLD * np.abs(amplitudes).max())
    kept = round(_KEPT * rate)
    return amplitudes[max(0, loud[0] - kept) : loud[-1] + 1 + kept]


def _soundfile() -> Any:
    try:
        import soundfile  # noqa: PLC0415  # an optional dependency
    except (ImportError, OSError):  # OSError: its library is missing
        raise _missing("soundfile to read sounds") from None
    return soundfile


def _soxr() -> Any:
    try:
        import soxr  # noqa: PLC0415  # an optional dependency
    except ImportError:
        raise _missing("soxr to resample sounds") from None
    return soxr


def _missing(what: str) -> UserError:
    return UserError(f"expected {what}, got none installed", "pip install 'ancestral[sound]'")
