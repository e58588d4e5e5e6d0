"""Sounds as .wav files, which everything plays."""

import wave
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from ancestral.clips import Clip, clips
from ancestral.errors import UserError
from ancestral.files import replacing
from ancestral.media.sound import Wave, waves
from ancestral.spec import Spec


def write_wav(path: str | Path, spec: Spec, x: Tensor, length: int | None = None) -> Path:
    """Write a sound ``(C, T)`` as 16-bit PCM at its rate, whole or not at all; where it is.

    Sounds of 2^16 linear levels keep their values; what lies beyond amplitude 1 is cut off.

    Args:
        path: where to, by custom with the ending ``.wav``.
        spec: what the values stand for.
        x: the sound.
        length: how many of the T are its own; all if None.

    Raises:
        UserError: the spec is not of sounds or says no rate, or the file cannot be written.
    """
    check_playable(spec)
    return _write(Path(path), spec, waves(spec, x[None, :, :length])[0])


def write_sounds(
    folder: str | Path, spec: Spec, sounds: Mapping[str, Tensor], lengths: Tensor | None = None
) -> Path:
    """Write sounds ``(N, C, T)`` as .wav files into a folder, where those of the same names make room; it.

    They are called ``FOLDER-0.wav``, ``FOLDER-1.wav``, ... and, where there are several sounds of a number,
    ``FOLDER-0-original.wav``, ``FOLDER-0-version.wav``, ...

    Args:
        folder: where to.
        spec: what the values stand for.
        sounds: by what they are; of one kind that may be "".
        lengths: how many of the T are each one's own, ``(N,)``; all if None.

    Raises:
        UserError: like ``write_wav``.
    """
    check_playable(spec)
    folder, written = Path(folder), set()
    for name, x in sounds.items():
        for i, sound in enumerate(waves(spec, x, lengths)):
            written.add(_write(Clip(i, name).path(folder, len(x)), spec, sound))
    for path in clips(folder).values():
        if path not in written:  # of a larger set, or of another version of the model
            path.unlink()
    return folder


def check_playable(spec: Spec) -> None:
    """Raise UserError unless examples are sounds of a known rate."""
    if spec.domain != "sound":
        raise UserError(f"expected sounds to write as .wav, got a spec of {spec.domain}", "write a sheet")
    if spec.rate is None:
        raise UserError("expected a rate of sounds to write as .wav, got none", "say it: Spec(rate=8000)")


def _write(path: Path, spec: Spec, sound: Wave) -> Path:
    # Level v of 2^16 is the amplitude (2 v - 65535) / 65535, and v - 32768 in the file.
    samples = np.rint(sound * 32767.5 - 0.5).clip(-(2**15), 2**15 - 1).astype("<i2")
    with replacing(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(len(samples))
        file.setsampwidth(2)
        file.setframerate(spec.rate or 0)
        file.writeframes(samples.T.tobytes())
    return path
