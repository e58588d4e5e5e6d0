"""Read recordings once: into memory if they fit, else into one file that is mapped.

The file has the samples of one recording after another, and takes its name when it is whole: a build that was
killed begins anew.
"""

import hashlib
import itertools
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ancestral.companding import to_levels
from ancestral.configuration import Configuration, Natural, to_json
from ancestral.data.dataset import fingerprint
from ancestral.data.pictures import SPLITS
from ancestral.data.preparation import SoundOptions
from ancestral.data.progress import in_chunks
from ancestral.data.recordings import Recordings, trimmed
from ancestral.data.sounds import Sounds
from ancestral.data.source import UnusableError
from ancestral.data.splits import assign, by_prompt, content_hashes
from ancestral.errors import UserError
from ancestral.files import Damaged, locked, replacing, sweep, write_json
from ancestral.records import read_record
from ancestral.spec import Spec

LAYOUT = 1
"""Changes when what a cache holds would no longer be what is built today."""
_CHUNK = 64
"""Recordings that are read before their samples go where they are kept."""
_BLOCK = 2**20
"""Samples that are encoded at once."""

_SAMPLES, _INDEX, _ABOUT = "samples.bin", "index.npz", "meta.json"

Levels = NDArray[np.integer]


@dataclass(frozen=True)
class Found:
    """What is known of the recordings of a source that have been read."""

    lengths: NDArray[np.int64]
    """Samples of each, ``(N,)``; 0 of those that were left out."""
    rows: Mapping[str, NDArray[np.int64]]
    """Which of them form each split."""
    duplicates: int
    """Recordings left out because a split held out by the source has the same samples."""
    skipped: Mapping[int, str]
    """Reason for each recording that cannot be used."""


@dataclass(frozen=True)
class Stored:
    """The recordings of a source as levels."""

    splits: Mapping[str, Sounds]
    found: Found
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class _About(Configuration):
    """What ``meta.json`` holds."""

    duplicates: Natural
    skipped: Mapping[str, str]
    fingerprint: str


def load(recordings: Recordings, options: SoundOptions, place: Path | None, room: int) -> Stored:
    """The recordings of a source as levels.

    Args:
        recordings: the source.
        options: what is done to them.
        place: the folder for those that do not fit into memory.
        room: bytes of samples up to which they do.

    Raises:
        UserError: none can be read, a split would be empty, or there is no room to keep them.
    """
    home = None if place is None else place / _key(recordings, options)
    if home is not None and home.is_dir():
        try:
            return _mapped(home, recordings, options)
        except Damaged:
            shutil.rmtree(home)
    reading = _Reading(recordings, options)
    rest, parts, held = iter(reading), list[Levels](), 0
    for levels in rest:
        parts.append(levels)
        held += levels.nbytes
        if held > room:
            break
    if held <= room:
        found = reading.found()
        splits = _splits(torch.from_numpy(np.concatenate(parts)), found, recordings, options)
        return Stored(splits, found, fingerprint(splits, options.levels, recordings.classes))
    if home is None:
        problem = f"expected a folder for more than {room:,} bytes of sound, got no home folder to make it in"
        raise UserError(problem, "name one: ANCESTRAL_CACHE=FOLDER")
    _build(home, parts, rest, reading)
    return _mapped(home, recordings, options)


class _Reading:
    """The usable recordings of a source as levels ``(T,)``, in order, and what is seen on the way."""

    def __init__(self, recordings: Recordings, options: SoundOptions) -> None:
        self.recordings, self.options, self.spec = recordings, options, options.spec()
        self.lengths = np.zeros(len(recordings), np.int64)
        self.hashes = np.zeros(len(recordings), np.uint64)
        self.skipped: dict[int, str] = {}

    def __iter__(self) -> Iterator[Levels]:
        for first, results in in_chunks(self._read, 0, len(self.recordings), _CHUNK, "reading sounds"):
            for i, result in enumerate(results, first):
                if isinstance(result, str):
                    self.skipped[i] = result
                else:
                    self.lengths[i], self.hashes[i] = len(result), content_hashes(result[None])[0]
                    yield result

    def _read(self, i: int) -> Levels | str:
        try:
            return levels_of(self.recordings.read(i, self.options.rate), self.options, self.spec)
        except UnusableError as error:
            return str(error)

    def found(self) -> Found:
        """What is known when all have been read. Raises UserError if a split would be empty."""
        recordings = self.recordings
        if len(self.skipped) == len(recordings):
            i, reason = next(iter(self.skipped.items()))
            what = f"none of the {len(recordings)} sounds of {recordings.source} can be read"
            raise UserError(f"{what} ({recordings.names[i]}: {reason})", "check the files")
        hashes, given = self.hashes, recordings.given
        remedy = "give more sounds that differ: equal ones never stand in two splits"
        if recordings.prompts is not None:
            hashes, given = by_prompt(recordings.prompts, self.options)
        shared = assign(recordings.source, hashes, given, self.lengths > 0, self.options, remedy=remedy)
        rows = {name: np.sort(rows) for name, rows in shared.rows.items()}
        return Found(self.lengths, rows, shared.duplicates, self.skipped)


def levels_of(amplitudes: NDArray[np.float32], options: SoundOptions, spec: Spec) -> Levels:
    """A recording at the options' rate as levels ``(T,)``."""
    if options.trim:
        amplitudes = trimmed(amplitudes, options.rate)
    blocks = range(0, len(amplitudes), _BLOCK)
    return np.concatenate([to_levels(amplitudes[first : first + _BLOCK], spec) for first in blocks])


def _build(home: Path, parts: list[Levels], rest: Iterator[Levels], reading: _Reading) -> None:
    """Write what has been read and the rest to files; another process may be at the same."""
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"expected to keep sounds in {home.parent}, got: {error.strerror}"
        raise UserError(problem, "name another folder for them: ANCESTRAL_CACHE=FOLDER") from None
    with locked(home.with_name(f"{home.name}.lock")):
        if home.is_dir():
            return
        sweep(home.parent)  # of killed processes
        with replacing(home) as folder:
            folder.mkdir()
            with (folder / _SAMPLES).open("wb") as file:
                for levels in itertools.chain(parts, rest):
                    file.write(levels.data)
            found = reading.found()
            with (folder / _INDEX).open("wb") as file:
                np.savez(file, lengths=found.lengths, **found.rows)  # type: ignore[arg-type]
            samples = _map(folder / _SAMPLES, reading.spec)
            splits = _splits(samples, found, reading.recordings, reading.options)
            about = _About(
                duplicates=found.duplicates,
                skipped={str(i): reason for i, reason in found.skipped.items()},
                fingerprint=fingerprint(splits, reading.options.levels, reading.recordings.classes),
            )
            write_json(folder / _ABOUT, to_json(about))


def _mapped(home: Path, recordings: Recordings, options: SoundOptions) -> Stored:
    """The finished build of a folder. Raises Damaged if it is not whole any more."""
    about, spec = read_record(_About, home / _ABOUT), options.spec()
    try:
        with (home / _INDEX).open("rb") as file, np.load(file) as saved:
            index = {name: saved[name] for name in ("lengths", *SPLITS)}
        lengths = index.pop("lengths")
        found = Found(lengths, index, about.duplicates, {int(i): why for i, why in about.skipped.items()})
        samples = _map(home / _SAMPLES, spec)
        if (len(lengths), int(lengths.sum())) != (len(recordings), len(samples)):
            raise ValueError(f"{len(samples):,} samples of {int(lengths.sum()):,}")
        splits = _splits(samples, found, recordings, options)
    except (OSError, ValueError, KeyError, IndexError, EOFError, BadZipFile) as error:
        problem = f"expected sounds in {home}, got: {error}"
        raise Damaged(problem, "remove that folder; they are read again") from error
    return Stored(splits, found, about.fingerprint)


def _splits(
    samples: Tensor, found: Found, recordings: Recordings, options: SoundOptions
) -> dict[str, Sounds]:
    """The splits, which share the samples of all recordings, ``(total,)``."""
    lengths, store = torch.from_numpy(found.lengths), samples[:, None]
    starts = lengths.cumsum(0) - lengths
    splits = {}
    for name, rows in found.rows.items():
        labels, at = recordings.labels_of(rows), torch.from_numpy(rows)
        splits[name] = Sounds(
            store,
            lengths[at],
            None if labels is None else torch.from_numpy(labels),
            silence=options.levels // 2,
            starts=starts[at],
        )
    return splits


def _map(path: Path, spec: Spec) -> Tensor:
    with warnings.catch_warnings():  # nobody writes to it
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.memmap(path, np.uint8, "r")).view(spec.dtype)


def _key(recordings: Recordings, options: SoundOptions) -> str:
    """Names the folder: by everything that the samples and their splits depend on."""
    values = asdict(options)
    del values["length"]  # belongs to training
    return hashlib.sha256(json.dumps([LAYOUT, recordings.key, values]).encode()).hexdigest()[:32]
