"""The layout of a folder of codes, which ``datasets.load_dataset`` opens as it stands (docs/codes.md).

``manifest.json``, and Parquet shards ``data/SPLIT-00000-of-00060.parquet``.
"""

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ancestral.configuration import Configuration, Count, Natural
from ancestral.errors import UserError
from ancestral.files import Damaged, check_readable, replacing
from ancestral.spec import Spec


@dataclass(frozen=True, kw_only=True)
class Level(Configuration):
    """What the code map of one level is."""

    shape: tuple[Count, Count, Count] | tuple[Count]
    """(M, h, w); of sounds (M,), whose codes (M, L) are as many as each is long."""
    codebook_size: Count
    dtype: Literal["uint8", "int16", "int32"]

    @classmethod
    def of(cls, spec: Spec) -> "Level":
        """The level of one of ``Tokenizer.code_specs``."""
        dtype: Any = str(spec.dtype).removeprefix("torch.")
        m, *rest = spec.shape
        shape = (m, rest[0], rest[1]) if len(rest) > 1 else (m,)
        return cls(shape=shape, codebook_size=spec.discrete_levels, dtype=dtype)

    @property
    def spec(self) -> Spec:
        """The level as ``Tokenizer.code_specs`` has it."""
        shape = self.shape if len(self.shape) > 1 else (*self.shape, 1)
        return Spec(shape=shape, levels=self.codebook_size, domain="codes")


@dataclass(frozen=True, kw_only=True)
class Timing(Configuration):
    """How codes of sounds lie in time."""

    rate: Natural
    """Samples a second; 0 if nobody knows."""
    strides: tuple[Count, ...]
    """Samples that a code of each level covers."""

    def counts(self, lengths: Tensor, i: int) -> Tensor:
        """How many codes of level ``i`` sounds of so many samples have, ``(N,)``: the coarsest cover them.

        >>> Timing(rate=8000, strides=(8, 4)).counts(torch.tensor([1, 8, 17]), 1)
        tensor([2, 2, 6])
        """
        coarsest = self.strides[0]
        return (lengths + coarsest - 1) // coarsest * (coarsest // self.strides[i])

    def said(self, levels: Sequence[Spec]) -> str:
        """How many codes a second there are, and bits a second if all codes are equally likely, in words.

        >>> level = Spec(shape=(1, 16), levels=256, domain="codes")
        >>> Timing(rate=8000, strides=(256,)).said([level])
        'codes at 31.25 Hz, 250 bits/s'
        """
        hertz = [self.rate / stride for stride in self.strides]
        bits = sum(
            h * spec.shape[0] * math.log2(spec.discrete_levels) for h, spec in zip(hertz, levels, strict=True)
        )
        return f"codes at {' and '.join(f'{h:.6g}' for h in hertz)} Hz, {bits:,.6g} bits/s"


class Part(NamedTuple):
    """Where one shard lies."""

    split: str
    k: int
    """Its number in the split."""
    first: int
    """Its first example in the split."""
    size: int


class Codes(NamedTuple):
    """Code maps, and what is known about the examples."""

    levels: tuple[Tensor, ...]
    """A map ``(n, M, h, w)`` for each level; of sounds ``(n, M, L)``, padded with 0."""
    labels: Tensor | None
    """Classes ``(n,)``."""
    lengths: Tensor | None = None
    """Of sounds, how many samples each has, ``(n,)``; None if nobody knows."""

    def split(self, size: int) -> Iterator["Codes"]:
        """``size`` examples after others."""
        for first in range(0, len(self.levels[0]), size):
            yield self.some(slice(first, first + size))

    def some(self, rows: slice) -> "Codes":
        """Some of the examples."""
        labels, lengths = (None if known is None else known[rows] for known in self[1:])
        return Codes(tuple(level[rows] for level in self.levels), labels, lengths)

    @classmethod
    def cat(cls, several: Sequence["Codes"]) -> "Codes":
        """One after another; maps of sounds are padded to the longest, and what all know is kept."""
        levels = []
        for maps in zip(*(codes.levels for codes in several), strict=True):
            longest = max(level.shape[-1] for level in maps)
            levels.append(torch.cat([pad(level, (0, longest - level.shape[-1])) for level in maps]))
        labels = [codes.labels for codes in several if codes.labels is not None]
        lengths = [codes.lengths for codes in several if codes.lengths is not None]
        known = (torch.cat(each) if len(each) == len(several) else None for each in (labels, lengths))
        return cls(tuple(levels), *known)


@dataclass(frozen=True, kw_only=True)
class CodesManifest(Configuration):
    """What a folder of codes holds, and of what: ``manifest.json``. Processes and times do not change it."""

    levels: tuple[Level, ...]
    """Coarse to fine: the columns level0, level1, …"""
    splits: Mapping[str, Count]
    """Examples of each split that is there."""
    shard: Count
    """Examples of a shard; the last of a split may have fewer."""
    classes: Natural
    """Number of classes that the column label may name; 0 if there is none."""
    class_names: tuple[str, ...]
    names: str | None
    """Checksum of the column name; none if the examples have no names."""
    data: str
    """Source of the data."""
    fingerprint: str
    """Of the data."""
    model: str
    """As commands call it."""
    weights: str
    """Checksum of those weights that make codes and decode them: a prior's are not among them."""
    timing: Timing | None = None
    """Of sounds: there is a column length, the samples of each."""

    @property
    def n(self) -> int:
        """Examples in all."""
        return sum(self.splits.values())

    def parts(self) -> list[Part]:
        """All shards, one split after another."""
        return [
            Part(split, k, first, min(self.shard, n - first))
            for split, n in self.splits.items()
            for k, first in enumerate(range(0, n, self.shard))
        ]

    def path(self, part: Part) -> Path:
        """Where a shard lies in the folder."""
        count = -(-self.splits[part.split] // self.shard)
        return Path("data") / f"{part.split}-{part.k:05d}-of-{count:05d}.parquet"

    def command(self, path: Path) -> str:
        """The command that makes this folder, without the name of the model."""
        split = next(iter(self.splits)) if len(self.splits) == 1 else "all"
        words = ["ancestral", "tokenize", "RUN", "--data", self.data, "--split", split, "--out", str(path)]
        return shlex.join(words)


def write_shard(
    out: Path,
    manifest: CodesManifest,
    part: Part,
    codes: Codes,
    *,
    names: Sequence[str] | None,
) -> None:
    """Write one shard, whole or not at all. Raises UserError if the package ``datasets`` is missing."""
    library = parquet()
    schema = _schema(library, manifest)
    columns = []
    for i, level in enumerate(codes.levels):
        if manifest.timing is not None and codes.lengths is not None:
            counts = manifest.timing.counts(codes.lengths, i)
            columns.append(_ragged(library.arrow, level.numpy(), counts.numpy()))
        else:
            maps = _nested(library.arrow, level.numpy())
            columns.append(library.arrow.ExtensionArray.from_storage(schema.field(i).type, maps))
    for known in (codes.lengths, codes.labels):
        if known is not None:
            columns.append(library.arrow.array(known.numpy(), library.arrow.int64()))
    if names is not None:
        columns.append(library.arrow.array(map(printable, names), library.arrow.string()))
    table = library.arrow.Table.from_arrays(columns, schema=schema)
    with replacing(out / manifest.path(part)) as temporary:
        # The checksums tell a flipped bit from a code.
        # Parts of lists keep the names that datasets gives them, by which a shard is known again.
        how = {"compression": "zstd", "write_page_checksum": True}
        compliant = manifest.timing is None
        library.files.write_table(table, temporary, **how, use_compliant_nested_type=compliant)


def read_shard(out: Path, manifest: CodesManifest, part: Part) -> Codes:
    """The codes of one shard, all that it holds checked: checksums, types, shapes and ranges.

    Raises:
        Damaged: it is missing, torn, or of other examples.
        UserError: it may not be read, or the package ``datasets`` is missing.
    """
    path, library = out / manifest.path(part), parquet()
    check_readable(path)
    try:
        schema = _schema(library, manifest)
        with library.files.ParquetFile(path, page_checksum_verification=True) as file:
            if file.metadata.num_rows != part.size:
                raise ValueError(f"it has {file.metadata.num_rows:,} rows")
            table = file.read()
        if not table.schema.equals(schema, check_metadata=True):
            raise ValueError(f"its columns are {', '.join(table.schema.names)}, or of other types")
        if empty := [name for name in table.schema.names if table[name].null_count]:
            raise ValueError(f"{empty[0]} is missing somewhere")
        labels, lengths = None, None
        if manifest.timing is None:
            levels = tuple(_codes(table[f"level{i}"], level.spec) for i, level in enumerate(manifest.levels))
        else:
            lengths = torch.from_numpy(table["length"].to_numpy().copy())
            if int(lengths.min()) < 1:
                raise ValueError("a sound has no samples")
            levels = tuple(
                _sounds(table[f"level{i}"], level.spec, manifest.timing.counts(lengths, i))
                for i, level in enumerate(manifest.levels)
            )
        if manifest.classes:
            labels = torch.from_numpy(table["label"].to_numpy().copy())
            Spec(shape=(1,), classes=manifest.classes).check_labels(labels, part.size)
    except Exception as error:  # Arrow raises types of its own and of Python's on broken bytes
        reason = str(error).partition("\n")[0] or type(error).__name__
        problem = f"expected {part.size} code maps in {path}, got a file that is damaged ({reason})"
        raise Damaged(problem, "make it anew") from None
    return Codes(levels, labels, lengths)


class Parquet(NamedTuple):
    """What reads and writes Parquet: the packages that the extra ``hub`` brings."""

    arrow: Any
    files: Any
    datasets: Any


def parquet(what: str = "a folder of codes", otherwise: str = "write .safetensors") -> Parquet:
    """The packages, imported when they are needed. Raises UserError, saying what for, if there are none."""
    try:
        import datasets  # noqa: PLC0415  # an optional dependency, which brings the other
        import pyarrow  # noqa: PLC0415
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError:
        problem = f"expected the package datasets, in whose form {what} is, got none"
        raise UserError(problem, f"pip install 'ancestral[hub]', or {otherwise}") from None
    return Parquet(pyarrow, pyarrow.parquet, datasets)


def printable(name: str) -> str:
    r"""A name as UTF-8 has it: bytes of a file name that are none are shown as ``\udcXX``."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _schema(library: Parquet, manifest: CodesManifest) -> Any:
    """The columns, with what ``datasets`` knows them by: arrays of a fixed shape, and classes by name."""
    hf = library.datasets
    features = {
        f"level{i}": hf.Array3D(shape=level.shape, dtype=level.dtype)
        if manifest.timing is None
        else hf.List(hf.List(hf.Value(level.dtype)))
        for i, level in enumerate(manifest.levels)
    }
    if manifest.timing is not None:
        features["length"] = hf.Value("int64")
    if manifest.classes:
        named = len(set(manifest.class_names)) == manifest.classes
        features["label"] = (
            hf.ClassLabel(names=[printable(name) for name in manifest.class_names])
            if named
            else hf.ClassLabel(num_classes=manifest.classes)
        )
    if manifest.names is not None:
        features["name"] = hf.Value("string")
    return hf.Features(features).arrow_schema


def _nested(arrow: Any, maps: "np.ndarray[Any, Any]") -> Any:
    """An array ``(n, M, h, w)`` as lists inside each other."""
    values = arrow.array(maps.reshape(-1))
    for size in reversed(maps.shape[1:]):
        offsets = arrow.array(np.arange(0, len(values) + 1, size, dtype=np.int32))
        values = arrow.ListArray.from_arrays(offsets, values)
    return values


def _ragged(arrow: Any, maps: "np.ndarray[Any, Any]", counts: "np.ndarray[Any, Any]") -> Any:
    """Padded codes ``(n, M, L)`` as lists of M lists each, as long as ``counts`` ``(n,)`` says."""
    n, codebooks, longest = maps.shape
    own = np.arange(longest) < counts[:, None]
    values = arrow.array(maps[np.broadcast_to(own[:, None], maps.shape)])
    ends = np.append(0, counts.repeat(codebooks).cumsum()).astype(np.int32)
    lists = arrow.ListArray.from_arrays(arrow.array(ends), values)
    return arrow.ListArray.from_arrays(np.arange(0, n * codebooks + 1, codebooks, dtype=np.int32), lists)


def _sounds(column: Any, spec: Spec, counts: Tensor) -> Tensor:
    """The codes of one column, padded with 0. Raises ValueError or UserError unless they are a level's."""
    codebooks, found = spec.shape[0], column.combine_chunks()
    inner = found.flatten()
    if inner.null_count or (np.asarray(found.value_lengths()) != codebooks).any():
        raise ValueError(f"its codes are not all of {codebooks} lists")
    if (np.asarray(inner.value_lengths()) != counts.repeat_interleave(codebooks).numpy()).any():
        raise ValueError("its codes are not as many as the sounds are long")
    values = inner.flatten()
    if values.null_count:
        raise ValueError("a code is missing")
    flat = torch.from_numpy(values.to_numpy().copy())
    own = (torch.arange(int(counts.max())) < counts[:, None])[:, None].expand(-1, codebooks, -1)
    codes = torch.zeros(own.shape, dtype=flat.dtype).masked_scatter_(own, flat)
    spec.check(codes)
    return codes


def _codes(column: Any, spec: Spec) -> Tensor:
    """The maps of one column. Raises ValueError or UserError unless they are those of a level."""
    parts = []
    for chunk in column.chunks:
        values = chunk.storage
        for size in spec.shape:
            if values.null_count or (np.asarray(values.value_lengths()) != size).any():
                raise ValueError(f"its maps are not all of shape {spec.shape}")
            values = values.flatten()
        if values.null_count:
            raise ValueError("a code is missing")
        parts.append(torch.from_numpy(values.to_numpy().reshape(-1, *spec.shape).copy()))
    codes = torch.cat(parts)
    spec.check(codes)
    return codes
