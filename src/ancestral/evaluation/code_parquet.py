"""The layout of a folder of codes, which ``datasets.load_dataset`` opens as it stands (docs/codes.md).

``manifest.json``, and Parquet shards ``data/SPLIT-00000-of-00060.parquet``.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ancestral.configuration import Configuration, Count, Natural
from ancestral.errors import UserError
from ancestral.files import Damaged, check_readable, replacing
from ancestral.spec import Spec


@dataclass(frozen=True, kw_only=True)
class Level(Configuration):
    """What the code map of one level is."""

    shape: tuple[Count, Count, Count]
    """(M, h, w)."""
    codebook_size: Count
    dtype: Literal["uint8", "int16", "int32"]

    @classmethod
    def of(cls, spec: Spec) -> "Level":
        """The level of one of ``Tokenizer.code_specs``."""
        dtype: Any = str(spec.dtype).removeprefix("torch.")
        m, h, w = spec.shape
        return cls(shape=(m, h, w), codebook_size=spec.discrete_levels, dtype=dtype)

    @property
    def spec(self) -> Spec:
        """The level as ``Tokenizer.code_specs`` has it."""
        return Spec(shape=self.shape, levels=self.codebook_size, domain="codes")


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
    """A map ``(n, M, h, w)`` for each level."""
    labels: Tensor | None
    """Classes ``(n,)``."""

    def split(self, size: int) -> Iterator["Codes"]:
        """``size`` examples after others."""
        for first in range(0, len(self.levels[0]), size):
            rows = slice(first, first + size)
            labels = None if self.labels is None else self.labels[rows]
            yield Codes(tuple(level[rows] for level in self.levels), labels)


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
    levels: Sequence[Tensor],
    *,
    labels: Tensor | None,
    names: Sequence[str] | None,
) -> None:
    """Write one shard, whole or not at all. Raises UserError if the package ``datasets`` is missing."""
    library = parquet()
    schema = _schema(library, manifest)
    columns = [
        library.arrow.ExtensionArray.from_storage(schema.field(i).type, _nested(library.arrow, level.numpy()))
        for i, level in enumerate(levels)
    ]
    if labels is not None:
        columns.append(library.arrow.array(labels.numpy(), library.arrow.int64()))
    if names is not None:
        columns.append(library.arrow.array(map(printable, names), library.arrow.string()))
    table = library.arrow.Table.from_arrays(columns, schema=schema)
    with replacing(out / manifest.path(part)) as temporary:
        # The checksums tell a flipped bit from a code.
        library.files.write_table(table, temporary, compression="zstd", write_page_checksum=True)


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
        levels = tuple(_codes(table[f"level{i}"], level.spec) for i, level in enumerate(manifest.levels))
        labels = None
        if manifest.classes:
            labels = torch.from_numpy(table["label"].to_numpy().copy())
            Spec(shape=(1,), classes=manifest.classes).check_labels(labels, part.size)
    except Exception as error:  # Arrow raises types of its own and of Python's on broken bytes
        reason = str(error).partition("\n")[0] or type(error).__name__
        problem = f"expected {part.size} code maps in {path}, got a file that is damaged ({reason})"
        raise Damaged(problem, "make it anew") from None
    return Codes(levels, labels)


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
        for i, level in enumerate(manifest.levels)
    }
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
