"""Code maps of any number of examples, as shards: by one process or several, and gone on with when killed."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ancestral.batch import Batch
from ancestral.capabilities import Tokenizer
from ancestral.data import Dataset, Preparation, Sounds
from ancestral.data.pictures import SPLITS
from ancestral.errors import UserError
from ancestral.evaluation.batches import SIZE
from ancestral.evaluation.code_parquet import (
    Codes,
    CodesManifest,
    Level,
    parquet,
    printable,
    read_shard,
    write_shard,
)
from ancestral.evaluation.shards import MANIFEST, begin, check_same, own_device
from ancestral.evaluation.subject import Subject, Trained, undisturbed
from ancestral.evaluation.tokens import as_tokenizer, codes_checksum, encoded, encoded_sounds, timing_of
from ancestral.files import Damaged
from ancestral.memory import check_room
from ancestral.processes import own_process
from ancestral.progress import bar
from ancestral.records import read_record
from ancestral.taxonomy import name_of

_SHARD = 10_000
"""Examples of a shard, if their maps are small, and as much work as a kill costs at most."""
_BYTES = 2**27
"""Of codes in a shard at most; so the places of lists within lists are below 2^31 too."""


@dataclass(frozen=True)
class CodeShards:
    """Codes on disk. Its length is that of all splits together; it iterates over the shards."""

    path: Path
    manifest: CodesManifest

    def __len__(self) -> int:
        return self.manifest.n

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """One shard after another, a map ``(n, M, h, w)`` for each level, on the CPU.

        Raises UserError for a shard that is missing or damaged.
        """
        return (codes.levels for codes in self.labeled())

    def labeled(self) -> Iterator[Codes]:
        """One shard after another, with the labels of its examples. Raises like ``__iter__``."""
        for part in self.manifest.parts():
            try:
                yield read_shard(self.path, self.manifest, part)
            except Damaged as error:
                raise UserError(error.problem, f"mend it with: {self.manifest.command(self.path)}") from None

    def codes(self, limit: int | None = None) -> tuple[Tensor, ...]:
        """The maps ``(N, M, h, w)`` of all levels, or those of the first ``limit`` examples.

        Raises UserError for more than the memory holds, or for a shard that is missing or damaged.
        """
        return self.read(limit).levels

    def read(self, limit: int | None = None) -> Codes:
        """What ``codes`` gives, with the labels."""
        n = len(self) if limit is None else min(limit, len(self))
        specs = [level.spec for level in self.manifest.levels]
        remedy = "ask for fewer (--n), or go through the shards one by one"
        if self.manifest.timing is not None:
            return self._read_sounds(n, remedy)
        size = n * sum(spec.dims * spec.dtype.itemsize for spec in specs)
        check_room(size, f"{n:,} code maps", remedy)
        whole = tuple(torch.empty(n, *spec.shape, dtype=spec.dtype) for spec in specs)
        labels, done = [], 0
        for codes in self.labeled():
            for place, level in zip(whole, codes.levels, strict=True):
                place[done : done + len(level)] = level[: n - done]
            if codes.labels is not None:
                labels.append(codes.labels[: n - done])
            done += len(codes.levels[0])
            if done >= n:
                break
        return Codes(whole, torch.cat(labels) if labels else None)

    def _read_sounds(self, n: int, remedy: str) -> Codes:
        """The codes of the first ``n`` sounds: how many these have, their shards alone know."""
        parts: list[Codes] = []
        left, longest, size = n, 0, sum(level.spec.dtype.itemsize for level in self.manifest.levels)
        for codes in self.labeled():
            parts.append(codes.some(slice(left)))
            left -= len(parts[-1].levels[0])
            longest = max(longest, sum(level[0].numel() for level in parts[-1].levels))
            check_room(n * longest * size, f"the codes of {n:,} sounds", remedy)
            if not left:
                break
        return Codes.cat(parts)


def read_code_shards(path: str | Path) -> CodeShards:
    """The codes in a folder. What its shards hold is checked as they are read.

    Raises:
        UserError: there are none, or shards are missing (the command that makes them is named).
    """
    path = Path(path)
    manifest = read_record(CodesManifest, path / MANIFEST)
    parts = manifest.parts()
    if missing := [part for part in parts if not (path / manifest.path(part)).exists()]:
        problem = f"expected {len(parts)} shards in {path}, got {len(parts) - len(missing)}"
        raise UserError(problem, f"go on with: {manifest.command(path)}")
    return CodeShards(path, manifest)


@undisturbed
@torch.no_grad()
def tokenize_shards(
    model: Trained,
    out: str | Path,
    data: Dataset | str | None = None,
    *,
    split: str = "train",
    preparation: Preparation | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> CodeShards:
    """The code maps of a split, as Parquet shards of 10,000 in the folder ``out`` (of large maps fewer).

    ``datasets.load_dataset(out)`` opens it: columns ``level0``, ``level1``, … (coarse to fine), of sounds
    ``length`` (samples), ``label`` if the data have classes, ``name`` if the examples have names. No more
    than a shard is in memory.

    The same call again goes on: whole shards stay, damaged ones are made anew. Processes that torchrun
    started share the shards, and each returns when its own are there.

    Args:
        model: a model, a run or its directory, or a Hub name.
        out: a new or an empty folder, or that of the same codes.
        data: a data set, or its source; a run's own data if None.
        split: ``train``, ``validation``, ``test``, or ``all`` for each of the three as a split of its own.
        preparation: how a source's data are prepared; as in the run, and to the model's spec, if None.
        device: where to compute; where a model is, else on the CPU, if None. Of several GPUs ``cuda`` is the
            one of this process's number.
        progress: show a progress bar.

    Raises:
        UserError: the model has no code maps, the data do not fit it, the package ``datasets`` is missing, or
            the folder holds other codes (what differs is named) or something else.
    """
    rank, world = own_process()
    subject = Subject.find(model, None if device is None else own_device(device))
    tokenizer = as_tokenizer(subject.model)
    parquet()
    dataset, out = subject.dataset(data, preparation), Path(out)
    manifest = _manifest(tokenizer, dataset, split)
    begin(out, manifest, _check_same)
    own, done = manifest.parts()[rank::world], 0
    total = sum(part.size for part in own)
    # A shard is written while the next one is computed.
    with bar("tokenizing", total=total, show=progress) as tell, ThreadPoolExecutor(1, "writer") as writer:
        written: Future[None] | None = None
        for part in own:
            try:
                read_shard(out, manifest, part)
            except Damaged:
                rows = slice(part.first, part.first + part.size)
                codes = _encoded(tokenizer, dataset.split(part.split), rows, partial(_tell_more, tell, done))
                codes = codes if manifest.classes else codes._replace(labels=None)
                names = None if manifest.names is None else dataset.names[part.split][rows]
                if written is not None:
                    written.result()
                written = writer.submit(write_shard, out, manifest, part, codes, names=names)
            done += part.size
            tell(done)
        if written is not None:
            written.result()
    return CodeShards(out, manifest)


def _tell_more(tell: Callable[[float], None], done: int, more: int) -> None:
    tell(done + more)


def _encoded(tokenizer: Tokenizer, split: Batch | Sounds, rows: slice, tell: Callable[[int], None]) -> Codes:
    """The codes of some examples of a split; ``tell`` is told how many there are so far."""
    if tokenizer.spec.domain != "sound":
        examples, parts = split[rows], list[Codes]()
        for maps in encoded(tokenizer, examples.x, show=False):
            parts.append(Codes(maps, None))
            tell(sum(len(part.levels[0]) for part in parts))
        return Codes.cat(parts)._replace(labels=examples.labels)
    some = split.only(rows) if isinstance(split, Sounds) else split[rows]
    found = []
    for codes in encoded_sounds(tokenizer, some, show=False):
        found.append(codes)
        tell(len(found))
    return Codes.cat(found)


def _check_same(out: Path, before: CodesManifest, manifest: CodesManifest) -> None:
    """Raise UserError unless the codes of a folder are those of the manifest."""
    other = dict(before.splits) != dict(manifest.splits)  # whose examples have other names
    but = ("names",) if other else ()
    check_same(out, before, manifest, what="codes", how="of something else", but=but)


def _manifest(tokenizer: Tokenizer, dataset: Dataset, split: str) -> CodesManifest:
    """What the folder will hold. Raises UserError for a split that there is not, or without examples."""
    wanted = SPLITS if split == "all" else (split,)
    parts = {name: part for name in wanted if len(part := dataset.split(name))}
    if not parts:
        raise UserError(f"expected at least 1 example in {split}, got none", "choose another split")
    specs, timing = tokenizer.code_specs(), timing_of(tokenizer)
    sizes = [spec.dims * spec.dtype.itemsize for spec in specs]
    if timing is not None:
        most = torch.tensor([max(_longest(part) for part in parts.values())])
        sizes = [int(timing.counts(most, i)) * s.shape[0] * s.dtype.itemsize for i, s in enumerate(specs)]
    labeled = dataset.spec.classes > 0 and all(part.labels is not None for part in parts.values())
    return CodesManifest(
        levels=tuple(map(Level.of, specs)),
        splits={name: len(part) for name, part in parts.items()},
        shard=_shard_size(sum(sizes)),
        classes=dataset.spec.classes if labeled else 0,
        class_names=dataset.classes if labeled else (),
        names=_names_checksum(dataset, list(parts)),
        data=dataset.source,
        fingerprint=dataset.fingerprint,
        model=name_of(type(tokenizer)),
        weights=codes_checksum(tokenizer),
        timing=timing,
    )


def _longest(split: Batch | Sounds) -> int:
    """Samples of the longest sound of a split."""
    return int(split.counts.max()) if split.lengths is None else int(split.lengths.max())


def _shard_size(size: int) -> int:
    """Examples of a shard whose codes take ``size`` bytes each: whole batches if it can be.

    >>> [_shard_size(2 * side**2) for side in (32, 128, 1024)]
    [10000, 4000, 64]
    """
    n = min(_SHARD, max(1, _BYTES // size))
    batch = 5 * SIZE
    return n if n in (_SHARD, n % batch) else n - n % batch


def _names_checksum(dataset: Dataset, splits: list[str]) -> str | None:
    """Of what the examples of some splits are called; None unless all have names."""
    if not all(split in dataset.names for split in splits):
        return None
    digest = hashlib.sha256()
    for split in splits:
        for name in dataset.names[split]:
            digest.update(f"{printable(name)}\n".encode())
    return digest.hexdigest()
