"""A data set as models see it: one spec, and three splits that do not overlap."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic

from typing_extensions import TypeVar

from ancestral.batch import Batch
from ancestral.columns import Columns
from ancestral.configuration import to_json
from ancestral.data.pictures import SPLITS
from ancestral.data.preparation import Preparation
from ancestral.data.sounds import Sounds
from ancestral.errors import UserError
from ancestral.files import write_json
from ancestral.spec import Spec

CHUNK = 2**24
"""Bytes that are hashed at once."""
_REASONS = 3
"""Skipped files that are named."""


def first_of(names: tuple[str, ...], most: int, between: str) -> str:
    """The first names, and how many more there are.

    >>> first_of(("a", "b", "c"), 2, ", ")
    'a, b, and 1 more'
    """
    more = f"{between}and {len(names) - most:,} more" if len(names) > most else ""
    return between.join(names[:most]) + more


Split = TypeVar("Split", bound=Batch | Sounds, default=Batch)
"""What a split is: ``Batch`` unless the data are sounds."""


@dataclass(frozen=True, repr=False)
class Dataset(Generic[Split]):
    """The three splits of a source. One that is built by hand may have contexts in its batches.

    Those of sounds are ``Sounds``, whole recordings of differing length; ``spec.shape`` is that of the crops
    which a training sees.

    >>> import torch
    >>> part = Batch(torch.zeros(4, 1, 2, 2, dtype=torch.uint8))
    >>> Dataset(source="mine", spec=Spec(shape=(1, 2, 2)), train=part, validation=part, test=part)
    Dataset('mine': image (1, 2, 2), 256 levels; 4 train, 4 validation, 4 test)
    """

    source: str
    spec: Spec
    train: Split
    """In memory or mapped from a file, as the other splits; never write to it."""
    validation: Split
    test: Split
    classes: tuple[str, ...] = ()
    """Name of each class; none for unlabeled data."""
    fingerprint: str = ""
    """SHA-256 over values, labels and splits; computed if it is not given."""
    skipped: tuple[str, ...] = ()
    """What could not be used, "name: reason"."""
    preparation: Preparation = field(default_factory=Preparation)
    """What was done to the source."""
    made: Mapping[str, str] = field(default_factory=dict)
    """How each split was made."""
    duplicates: int = 0
    """Examples left out because a held-out split of the source's own has the same values."""
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What the examples of each split are called in the source; nothing for their positions."""
    columns: Columns | None = None
    """Of a table: what its columns are called, and how they were standardized."""

    def __post_init__(self) -> None:
        if self.columns is not None and self.spec.shape != (len(self.columns.names),):
            got = f"{len(self.columns.names)} columns for {self.spec.domain} {self.spec.shape}"
            raise UserError(f"expected a column for each value of an example, got {got}", "name all or none")
        if not self.fingerprint:
            splits = {name: self.split(name) for name in SPLITS}
            object.__setattr__(self, "fingerprint", fingerprint(splits, self.spec.levels, self.classes))

    def __repr__(self) -> str:
        classes = f", {self.spec.classes} classes" if self.spec.classes else ""
        what = f"{self.spec.domain} {self.spec.shape}{self.values}{classes}"
        return f"Dataset({self.source!r}: {what}; {self.sizes})"

    @property
    def values(self) -> str:
        """What the values of an example are, in words that follow its shape."""
        spec = self.spec
        rate = f" at {spec.rate:,} Hz" if spec.rate is not None else ""
        encoding = f", {spec.encoding}" if spec.encoding is not None else ""
        levels = "real numbers" if spec.levels is None else f"{spec.levels} levels"
        return f"{rate}{encoding}, {levels}"

    @property
    def sizes(self) -> str:
        """How many examples each split has, and how long its sounds are together, in words."""
        return ", ".join(f"{len(self.split(name)):,} {name}{self._minutes(name)}" for name in SPLITS)

    @property
    def skips(self) -> str:
        """How many examples could not be used, and why the first could not, in words; empty if all could."""
        return f"{len(self.skipped):,}: {first_of(self.skipped, _REASONS, '; ')}" if self.skipped else ""

    def _minutes(self, name: str) -> str:
        split = self.split(name)
        if not isinstance(split, Sounds) or self.spec.rate is None:
            return ""
        return f" ({split.total / self.spec.rate / 60:,.1f} min)"

    def split(self, name: str, limit: int | None = None) -> Split:
        """A split (``all``: one after another), or its first ``limit`` examples.

        Raises:
            UserError: an unknown name, or a limit below 1.
        """
        if limit is not None and limit < 1:
            raise UserError(f"expected at least 1 example, got {limit}", "ask for more")
        if name == "all":
            parts, left = [], limit
            for (
                part
            ) in SPLITS:  # cut before they are joined, which brings what is mapped from files into memory
                if left != 0:
                    parts.append(self.split(part, left))
                    left = None if left is None else left - len(parts[-1])
            joined: Split = type(parts[0]).cat(parts)  # type: ignore[arg-type,assignment]
            return joined
        if name not in SPLITS:
            raise UserError(f"expected a split, got {name}", f"choose from {', '.join(SPLITS)}, all")
        split: Split = getattr(self, name)
        if limit is None:
            return split
        return split.only(slice(limit)) if isinstance(split, Sounds) else split[:limit]  # type: ignore[return-value]

    @property
    def log_determinant(self) -> float:
        """What standardization adds to a log density, in nats: log p(row of the file) = log p(x) + this."""
        return 0.0 if self.columns is None else self.columns.log_determinant

    def standardized_as(self, columns: Columns) -> "Dataset":
        """The rows of a table in the units of another one, that a model was trained on.

        Raises:
            UserError: the columns are others.
        """
        own = self.columns
        assert own is not None
        columns.check_same(own)
        if (own.means, own.scales) == (columns.means, columns.scales):
            return self  # type: ignore[return-value]

        def changed(batch: Batch) -> Batch:
            return replace(batch, x=columns.standardized(own.restored(batch.x)))

        table: Dataset[Any] = self
        train, validation, test = (changed(table.split(name)) for name in SPLITS)
        return replace(table, train=train, validation=validation, test=test, columns=columns, fingerprint="")

    def describe(self) -> dict[str, Any]:
        """What a run writes down about its data, as JSON."""
        table = {} if self.columns is None else {"columns": to_json(self.columns)}
        return {
            "source": self.source,
            "spec": to_json(self.spec),
            "sizes": {name: len(self.split(name)) for name in SPLITS},
            "made": dict(self.made),
            "duplicates_left_out": self.duplicates,
            "classes": list(self.classes),
            **table,
            "fingerprint": self.fingerprint,
            "skipped": list(self.skipped),
        }

    def write_splits(self, path: Path) -> None:
        """Write which examples of the source (files of a folder, or rows) form which split, as JSON."""
        write_json(path, {name: self.names_of(name) for name in SPLITS})

    def names_of(self, split: str) -> list[str]:
        """What the examples of a split (``all``: one after another) are called: files, or rows."""
        if split == "all":
            return [name for part in SPLITS for name in self.names_of(part)]
        return list(self.names.get(split, map(str, range(len(self.split(split))))))


def fingerprint(splits: Mapping[str, Batch | Sounds], levels: int | None, classes: tuple[str, ...]) -> str:
    """SHA-256 (hex) over shapes, levels, classes, and the values, labels and contexts of each split."""
    digest = hashlib.sha256(json.dumps([levels, classes]).encode())
    for name in SPLITS:
        split = splits[name]
        if isinstance(split, Sounds):
            shape, parts = [len(split), split.total], [split.lengths, *split.recordings()]
        else:
            shape, parts = list(split.x.shape), [split.x, *split.contexts]
        digest.update(json.dumps([name, shape, split.labels is not None]).encode())
        for values in parts:
            rows = max(1, CHUNK // max(1, values[:1].numel()))
            for first in range(0, len(values), rows):
                digest.update(values[first : first + rows].contiguous().numpy().data)
        if split.labels is not None:
            digest.update(split.labels.numpy().astype("<i8").data)
    return digest.hexdigest()
