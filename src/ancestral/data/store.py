"""Decode images once: into memory if they fit, else into files that are mapped.

Files are written so that a build can be killed at any time and goes on where it was. Rows are decoded in the
order of the source into ``train.npy.partial``, and ``journal.jsonl`` tells how many are safely there. Then
the held-out rows are copied to files of their own, and train is brought together in place: no row that is
still to be read is overwritten, so each of these moves may be done again.
"""

import errno
import io
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ancestral.batch import Batch
from ancestral.configuration import Configuration, Count, Natural, to_json
from ancestral.data.dataset import fingerprint
from ancestral.data.decoded import Decoded
from ancestral.data.pictures import SPLITS, TEST, TRAIN, VALIDATION, Pictures
from ancestral.data.pixels import Target, decode, opened, quantize
from ancestral.data.preparation import ImageOptions
from ancestral.data.progress import in_chunks
from ancestral.data.source import UnusableError
from ancestral.data.splits import Assignment, assign, content_hashes, united
from ancestral.data.survey import Survey, survey, unreadable
from ancestral.errors import UserError
from ancestral.files import Damaged, locked, replacing, write_json
from ancestral.records import read_record

CHUNK = 2**26
"""Bytes that are decoded, and noted in the journal, at once."""
FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


@dataclass(frozen=True)
class Stored:
    """Decoded examples and where in the source they come from."""

    splits: Mapping[str, Batch]
    rows: Mapping[str, NDArray[np.int64]]
    levels: int
    duplicates: int
    skipped: Mapping[int, str]
    """Reason for each image of the source that was left out."""
    fingerprint: str


def in_memory(pictures: Pictures, found: Survey, options: ImageOptions) -> Stored:
    """Decode everything into one tensor; the splits are parts of it and copies of its few held-out rows."""
    target, decoded = found.target, found.decoded or Decoded(pictures, found.target)
    x = decoded.x
    if pictures.array is not None and pictures.array.shape[2:] == target.size:
        x[:] = quantize(pictures.array, target.native, target.levels)
    else:
        decoded.read_rest()
    skipped = dict(sorted(decoded.skipped.items()))
    hashes = content_hashes(x, mirrored=options.flip)
    assignment = _assign(pictures, hashes, skipped, options)
    arrays = {name: x[rows] for name, rows in assignment.rows.items() if name != "train"}
    train = assignment.rows["train"]
    moved = np.flatnonzero(train != np.arange(len(train)))
    x[moved] = x[train[moved]]
    arrays["train"] = x[: len(train)]
    splits = _splits(
        pictures, assignment.rows, {name: torch.from_numpy(array) for name, array in arrays.items()}
    )
    digest = fingerprint(splits, target.levels, pictures.classes)
    return Stored(splits, assignment.rows, target.levels, assignment.duplicates, skipped, digest)


def is_built(folder: Path) -> bool:
    """Whether the folder holds a finished build."""
    return os.path.exists(folder / "meta.json")  # noqa: PTH110 - which says no where nothing can be read


def build(folder: Path, pictures: Pictures, options: ImageOptions, target: Target | None = None) -> None:
    """Decode everything into files of the folder.

    Goes on with a build that was killed, and waits for one that another process is at.

    Raises:
        UserError: the disk is too small, the folder cannot be made, a split would be empty, or no image can
            be read.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"expected to keep decoded images in {folder}, got: {error.strerror}"
        raise UserError(problem, "name another folder for them: ANCESTRAL_CACHE=FOLDER") from None
    with locked(folder / "lock"):
        if is_built(folder):
            return
        target = target or survey(pictures, options).target
        _Build(folder, pictures, target, options).run()


def mapped(folder: Path, pictures: Pictures) -> Stored:
    """The finished build of a folder. Raises Damaged if it is not whole any more."""
    meta = read_record(_Meta, folder / "meta.json")
    try:
        with (folder / "rows.npz").open("rb") as file, np.load(file) as saved:
            rows = {name: saved[name] for name in SPLITS}
        splits = _splits(pictures, rows, {name: _tensor(folder / f"{name}.npy") for name in SPLITS})
        skipped = {int(i): reason for i, reason in meta.skipped.items()}
        if lengths := [name for name in SPLITS if len(rows[name]) != len(splits[name])]:
            raise ValueError(f"{lengths[0]} of another length")
    except (FileNotFoundError, ValueError, KeyError, IndexError, EOFError, BadZipFile) as error:
        problem = f"expected decoded images in {folder}, got: {error}"
        raise Damaged(problem, "remove that folder; they are decoded again") from error
    return Stored(splits, rows, meta.levels, meta.duplicates, skipped, meta.fingerprint)


def forget(folder: Path) -> None:
    """Take back that a folder's build is finished: the next ``build`` begins anew."""
    with locked(folder / "lock"):
        for path in [folder / "meta.json", *folder.glob("*.np[yz]")]:
            path.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class _Meta(Configuration):
    """What ``meta.json`` holds."""

    levels: Count
    duplicates: Natural
    skipped: Mapping[str, str]
    fingerprint: str


@dataclass
class _Build:
    folder: Path
    pictures: Pictures
    target: Target
    options: ImageOptions
    needed: int = field(init=False)
    """Bytes of disk that the build takes."""

    def __post_init__(self) -> None:
        share = float((self.pictures.given != TRAIN).mean())
        share += 0.0 if self.pictures.has(TEST) else self.options.test
        share += 0.0 if self.pictures.has(VALIDATION) else self.options.validation
        self.needed = int(len(self.pictures) * self.row_bytes * (1 + share)) + 2**20
        self.partial = self.folder / "train.npy.partial"
        self.train = self.folder / "train.npy"
        self.journal = self.folder / "journal.jsonl"

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.target.shape))

    def run(self) -> None:
        for torn in self.folder.glob(".*.tmp"):  # of a killed process: the lock says that nobody writes it
            torn.unlink()
        there = sum(file.stat().st_size for file in self.folder.iterdir())
        if (free := shutil.disk_usage(self.folder).free) + there < self.needed:
            raise self._too_full(f"{free:,} bytes free")
        try:
            hashes, skipped = self._decode()
            assignment = _assign(self.pictures, hashes, skipped, self.options)
            self._settle(assignment)
            splits = _splits(
                self.pictures,
                assignment.rows,
                {name: _tensor(self.folder / f"{name}.npy") for name in SPLITS},
            )
            meta = _Meta(
                levels=self.target.levels,
                duplicates=assignment.duplicates,
                skipped={str(i): reason for i, reason in skipped.items()},
                fingerprint=fingerprint(splits, self.target.levels, self.pictures.classes),
            )
            with replacing(self.folder / "rows.npz") as whole, whole.open("wb") as file:
                np.savez(file, **assignment.rows)  # type: ignore[arg-type]  # mypy takes the names for allow_pickle
            write_json(self.folder / "meta.json", to_json(meta))
        except OSError as error:
            if error.errno in FULL:
                raise self._too_full("a full disk") from error
            raise
        self.journal.unlink()

    def _too_full(self, got: str) -> UserError:
        return UserError(
            f"expected {self.needed:,} bytes free in {self.folder} for {len(self.pictures):,} images of "
            f"{self.target.shape}, got {got}",
            "free some space, choose another cache folder or a smaller --images.size; "
            "the same command then goes on",
        )

    def _decode(self) -> tuple[NDArray[np.uint64], dict[int, str]]:
        """Decode what is not yet there. Returns the hash of every row, and what was skipped."""
        done, parts, skipped = self._resume()
        if done < len(self.pictures):
            with (
                self.partial.open("r+b" if done else "w+b") as data,
                self.journal.open("a" if done else "w", encoding="utf-8") as journal,
            ):
                _write(data, _header((len(self.pictures), *self.target.shape)), 0)
                offset = data.tell()
                for first, block, odd in _decoded(self.pictures, self.target, done):
                    _write(data, block.data, offset + first * self.row_bytes)
                    _sync(data)
                    hashes = content_hashes(block, mirrored=self.options.flip)
                    parts.append(hashes)
                    skipped |= odd
                    print(
                        json.dumps(
                            {"done": first + len(block), "hashes": hashes.tobytes().hex(), "skipped": odd}
                        ),
                        file=journal,
                    )
                    _sync(journal)
        return np.concatenate(parts), skipped

    def _resume(self) -> tuple[int, list[NDArray[np.uint64]], dict[int, str]]:
        """What the journal of a killed build tells; a line that the kill has torn is cut off."""
        done, good = 0, 0
        parts: list[NDArray[np.uint64]] = []
        skipped: dict[int, str] = {}
        if not self.journal.exists() or not (self.partial.exists() or self.train.exists()):
            return done, parts, skipped
        for line in self.journal.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            try:
                entry: dict[str, Any] = json.loads(line)
            except ValueError:
                break
            done, good = entry["done"], good + len(line)
            hashes = np.frombuffer(bytes.fromhex(entry["hashes"]), "<u8")
            parts.append(hashes.reshape(-1, 2) if self.options.flip else hashes)
            skipped |= {int(i): reason for i, reason in entry["skipped"].items()}
        os.truncate(self.journal, good)
        return done, parts, skipped

    def _settle(self, assignment: Assignment) -> None:
        """Move the rows of each split to its own file."""
        header = len(_header((len(self.pictures), *self.target.shape)))
        train = assignment.rows["train"]
        if self.partial.exists():
            raw = np.load(self.partial, mmap_mode="r")
            for name in ("validation", "test"):
                if not (self.folder / f"{name}.npy").exists():
                    rows = assignment.rows[name]
                    with replacing(self.folder / f"{name}.npy") as whole, whole.open("wb") as file:
                        file.write(_header((len(rows), *self.target.shape)))
                        for row in rows:
                            file.write(raw[row].data)
            with self.partial.open("r+b") as data:
                for place in np.flatnonzero(train != np.arange(len(train))).tolist():
                    _write(data, raw[train[place]].tobytes(), header + place * self.row_bytes)
                _sync(data)
            del raw
            self.partial.replace(self.train)
        with self.train.open("r+b") as data:
            _write(data, _header((len(train), *self.target.shape)), 0)
            data.truncate(header + len(train) * self.row_bytes)
            _sync(data)


def _decoded(
    pictures: Pictures, target: Target, start: int
) -> Iterator[tuple[int, NDArray[np.uint8], dict[int, str]]]:
    """Yield (first index, images ``(n, C, H, W)``, reason for each that cannot be used and is zero)."""

    def one(i: int) -> NDArray[np.uint8] | str:
        try:
            with opened(pictures, i) as image:
                return decode(image, target)
        except UnusableError as error:
            return str(error)

    chunk = max(1, min(512, CHUNK // int(np.prod(target.shape))))
    for first, results in in_chunks(one, start, len(pictures), chunk, "decoding images"):
        block = np.zeros((len(results), *target.shape), np.uint8)
        odd = {}
        for i, result in enumerate(results):
            if isinstance(result, str):
                odd[first + i] = result
            else:
                block[i] = result
        yield first, block, odd


def _assign(
    pictures: Pictures, hashes: NDArray[np.uint64], skipped: Mapping[int, str], options: ImageOptions
) -> Assignment:
    if len(skipped) == len(pictures):
        i, reason = next(iter(skipped.items()))
        raise unreadable(pictures, f"{pictures.names[i]}: {reason}")
    usable = np.ones(len(pictures), np.bool_)
    usable[list(skipped)] = False
    remedy = "give more images that differ: images with the same pixels never stand in two splits"
    if options.flip:
        hashes = united(hashes, usable)
        remedy += ", nor do mirror images where training flips"
    return assign(pictures.source, hashes, pictures.given, usable, options, remedy=remedy)


def _splits(
    pictures: Pictures, rows: Mapping[str, NDArray[np.int64]], x: Mapping[str, Tensor]
) -> dict[str, Batch]:
    labels = {name: pictures.labels_of(rows[name]) for name in SPLITS}
    return {
        name: Batch(x[name], None if (values := labels[name]) is None else torch.from_numpy(values))
        for name in SPLITS
    }


def _tensor(path: Path) -> Tensor:
    # Read-only, since a private writable map would have to fit into memory and swap; nobody writes to it, so
    # the warning is of no use.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.load(path, mmap_mode="r"))


def _header(shape: tuple[int, ...]) -> bytes:
    """The header of a .npy file of bytes, as long for any number of rows (NumPy leaves room in it)."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()


def _write(file: IO[bytes], data: Any, offset: int) -> None:
    file.seek(offset)
    file.write(data)


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())
