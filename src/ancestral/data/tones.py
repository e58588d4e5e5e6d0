"""Synthetic sounds: sequences of twelve symbols in four voices, for tests and for the first minute.

They take the place of speech: a voice is a pitch and a timbre, a symbol is what is said, and every sequence
of symbols is there in every voice. Nothing is random on another machine, or from one version of a library to
the next: waves are looked up in tables of integers, and noise is a hash of its place.
"""

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ancestral.data.pictures import TRAIN
from ancestral.data.recordings import Recordings, resampled

TONES: Final = "tones"
RATE: Final = 8000
"""Hz, of the sounds as they are made."""
SYMBOL_SAMPLES: Final = 1024
"""Samples of every symbol at ``RATE``, .128 seconds: symbol j takes j * 1024 .. (j+1) * 1024 - 1."""
SYMBOLS: Final = "abcdefghijkl"
"""a to e are vowels, f and g rise and fall by an octave, h trembles, i is two octaves higher, j hisses, k is
noise over a drone, l are pulses."""

_PITCHES: Final = {"bass": 98, "tenor": 147, "alto": 220, "soprano": 330}
"""Hz, of each voice."""
_SHARES: Final = {"bass": 0.92, "tenor": 0.75, "alto": 0.85, "soprano": 0.55}
"""What of a harmonic's amplitude the next one has, of each voice: its timbre."""
_FORMANTS: Final = {"a": (700, 1150), "b": (480, 1900), "c": (290, 2250), "d": (460, 800), "e": (310, 620)}
"""Hz of the first two formants of the vowels."""
_SEQUENCES: Final = 150
_FADE: Final = 32
"""Samples before and after a boundary over which a symbol gives way to the next."""
_TABLE: Final = 4096
"""Values of one period of a wave."""
_TURN: Final = 2**32
"""Units of phase of one period."""


def tones() -> Recordings:
    """600 sounds of 3 or 4 symbols: 150 sequences, each in four voices, which are the classes.

    A sound is called after its voice and its symbols: ``bass/a-c-e-b``. Splits are by sequence.
    """
    names = tuple(f"{voice}/{'-'.join(s)}" for s in _sequences() for voice in _PITCHES)

    def read(i: int, rate: int) -> NDArray[np.float32]:
        return resampled(iter([_sound(i).astype(np.float32) / np.float32(2**15)]), RATE, rate)

    return Recordings(
        source=TONES,
        names=names,
        given=np.full(len(names), TRAIN, np.int8),
        key="1",  # changes when a sound does
        labels=np.arange(len(names), dtype=np.int64) % len(_PITCHES),
        classes=tuple(_PITCHES),
        read=read,
        prompts=tuple(name.partition("/")[2] for name in names),
    )


def symbols_of(name: str) -> list[int]:
    """The symbols of a sound, as places in ``SYMBOLS``, by its name; all last ``SYMBOL_SAMPLES``.

    >>> symbols_of("bass/a-c-e-b")
    [0, 2, 4, 1]
    """
    return [SYMBOLS.index(symbol) for symbol in name.rpartition("/")[2].split("-")]


@cache
def _sequences() -> tuple[str, ...]:
    """Different sequences of 3 or 4 symbols, none twice in a row."""
    found: dict[str, None] = {}
    draws = iter(_hashes(0, 16 * _SEQUENCES).tolist())
    while len(found) < _SEQUENCES:
        sequence = ""
        for _ in range(3 + len(found) % 2):
            others = [symbol for symbol in SYMBOLS if not sequence.endswith(symbol)]
            sequence += others[next(draws) % len(others)]
        found[sequence] = None
    return tuple(found)


def _sound(i: int) -> NDArray[np.int64]:
    """The i-th sound, 16-bit integers ``(T,)``; its pitch and its loudness differ a little from others'."""
    sequence, voice = _sequences()[i // len(_PITCHES)], list(_PITCHES)[i % len(_PITCHES)]
    pitch, loud = (_hashes(1000 + i, 2) % np.uint64(1001)).astype(np.int64).tolist()
    step = _PITCHES[voice] * _TURN * (970_000 + 60 * pitch) // (RATE * 10**6)  # -3 % to +3 %
    sound = np.zeros(len(sequence) * SYMBOL_SAMPLES + 2 * _FADE, np.int64)
    for j, symbol in enumerate(sequence):
        wave = _symbol(symbol, voice, step, seed=10_000 + 8 * i + j)
        sound[j * SYMBOL_SAMPLES :][: len(wave)] += wave * _window() // _FADE
    return sound[_FADE:-_FADE] * (500 + loud // 2) // 1000


@cache
def _window() -> NDArray[np.int64]:
    """How much of a symbol there is at each of its samples, of ``_FADE``; those of neighbors add up to it."""
    rise = (np.arange(2 * _FADE) + 1) // 2
    return np.concatenate([rise, np.full(SYMBOL_SAMPLES - 2 * _FADE, _FADE), _FADE - rise])


def _symbol(symbol: str, voice: str, step: int, seed: int) -> NDArray[np.int64]:
    """A symbol and what of it lies beyond its boundaries, 16-bit integers ``(1024 + 2 * _FADE,)``."""
    n = SYMBOL_SAMPLES + 2 * _FADE
    t, start = np.arange(n), int(_hashes(seed, 1)[0] % np.uint64(_TURN))
    steps = np.full(n, step)
    if symbol in "fg":
        glide = step * t // n
        steps = step + (glide if symbol == "f" else glide[::-1])
    if symbol == "i":
        steps = steps * 4
    wave = _wave(symbol, voice)[((start + steps.cumsum()) % _TURN) * _TABLE // _TURN]
    if symbol == "h":
        tremble = _sine()[t * 25 * _TABLE // RATE % _TABLE]
        wave = wave * (2**15 + tremble) // 2**16
    if symbol in "jk":
        noise = (_hashes(seed + 1_000_000, n + 8) >> np.uint64(48)).astype(np.int64) - 2**15
        hiss = (noise[1 : n + 1] - noise[:n]) // 4
        rumble = sum(noise[k : k + n] for k in range(8)) // 8
        wave = wave // 6 + hiss if symbol == "j" else wave // 2 + rumble
    return wave


@cache
def _wave(symbol: str, voice: str) -> NDArray[np.int64]:
    """One period of a voice's sound for a symbol, integers up to 20,000 in size, ``(4096,)``."""
    pitch, share, places = _PITCHES[voice], _SHARES[voice], np.arange(_TABLE)
    highest = max(1, 3600 // (pitch * {"f": 2, "g": 2, "i": 4}.get(symbol, 1)))
    wave = np.zeros(_TABLE)
    for k in range(1, highest + 1):
        if symbol in _FORMANTS:
            weight = sum(1 / (1 + ((k * pitch - f) / 120) ** 2) for f in _FORMANTS[symbol]) * share ** (k / 4)
        elif symbol == "l":
            weight = 1.0
        else:
            weight = (share / 2) ** (k - 1)
        phase = 0 if symbol == "l" else k * k * _TABLE // 16  # else all harmonics peak at once
        wave += weight * _sine()[(k * places + phase + _TABLE // 4) % _TABLE]
    return np.rint(wave * (20_000 / np.abs(wave).max())).astype(np.int64)


@cache
def _sine() -> NDArray[np.int64]:
    return np.rint((2**15 - 1) * np.sin(2 * np.pi * np.arange(_TABLE) / _TABLE)).astype(np.int64)


def _hashes(seed: int, n: int) -> NDArray[np.uint64]:
    """As good as random, ``(n,)``: splitmix64 (Steele, Lea & Flood, 2014) from a place that the seed says."""
    state = (np.arange(1, n + 1, dtype=np.uint64) + np.uint64(seed << 32)) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
