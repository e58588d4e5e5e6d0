"""A data set as models see it: one spec, and three splits that do not overlap."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ancestral.batch import Batch
from ancestral.columns import Columns
from ancestral.configuration import to_json
from ancestral.data.pictures import SPLITS
from ancestral.data.preparation import Preparation
from ancestral.errors import UserError
from ancestral.files import write_json
from ancestral.spec import Spec

CHUNK = 2**24
"""Bytes that are hashed at once."""


@dataclass(frozen=True, repr=False)
class Dataset:
    """The three splits of a source. One that is built by hand may have contexts in its batches.

    >>> import torch
    >>> part = Batch(torch.zeros(4, 1, 2, 2, dtype=torch.uint8))
    >>> Dataset(source="mine", spec=Spec(shape=(1, 2, 2)), train=part, validation=part, test=part)
    Dataset('mine': image (1, 2, 2), 256 levels; 4 train, 4 validation, 4 test)
    """

    source: str
    spec: Spec
    train: Batch
    """In memory or mapped from a file, as the other splits; never write to it."""
    validation: Batch
    test: Batch
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
        values = "real numbers" if self.spec.levels is None else f"{self.spec.levels} levels"
        classes = f", {self.spec.classes} classes" if self.spec.classes else ""
        sizes = ", ".join(f"{len(self.split(name)):,} {name}" for name in SPLITS)
        return f"Dataset({self.source!r}: {self.spec.domain} {self.spec.shape}, {values}{classes}; {sizes})"

    def split(self, name: str, limit: int | None = None) -> Batch:
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
            return Batch.cat(parts)
        if name not in SPLITS:
            raise UserError(f"expected a split, got {name}", f"choose from {', '.join(SPLITS)}, all")
        split: Batch = getattr(self, name)
        return split if limit is None else split[:limit]

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
            return self

        def changed(batch: Batch) -> Batch:
            return replace(batch, x=columns.standardized(own.restored(batch.x)))

        train, validation, test = (changed(self.split(name)) for name in SPLITS)
        return replace(self, train=train, validation=validation, test=test, columns=columns, fingerprint="")

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


def fingerprint(splits: Mapping[str, Batch], levels: int | None, classes: tuple[str, ...]) -> str:
    """SHA-256 (hex) over shapes, levels, classes, and the values, labels and contexts of each split."""
    digest = hashlib.sha256(json.dumps([levels, classes]).encode())
    for name in SPLITS:
        split = splits[name]
        digest.update(json.dumps([name, list(split.x.shape), split.labels is not None]).encode())
        for values in (split.x, *split.contexts):
            rows = max(1, CHUNK // max(1, values[:1].numel()))
            for first in range(0, len(values), rows):
                digest.update(values[first : first + rows].contiguous().numpy().data)
        if split.labels is not None:
            digest.update(split.labels.numpy().astype("<i8").data)
    return digest.hexdigest()
