"""A data set as models see it: integers, labels and three splits that do not overlap."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ancestral.data.pictures import SPLITS
from ancestral.files import write_json
from ancestral.spec import Spec

CHUNK = 2**24
"""Bytes that are hashed at once."""


@dataclass(frozen=True)
class Split:
    """Some examples of a data set."""

    x: Tensor
    """uint8 ``(N, C, H, W)``, in memory or mapped from a file; never write to it."""
    labels: Tensor | None
    """int64 ``(N,)``; None where the source has no labels."""

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class Dataset:
    """The three splits of a source."""

    source: str
    spec: Spec
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    """Name of each class; none for unlabeled data."""
    fingerprint: str
    """SHA-256 over values, labels and splits."""
    skipped: tuple[str, ...]
    """What could not be used, "name: reason"."""
    made: Mapping[str, str] = field(default_factory=dict)
    """How each split was made."""
    duplicates: int = 0
    """Examples left out because a held-out split of the source's own has the same pixels."""
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    """What the examples of each split are called in the source."""

    def describe(self) -> dict[str, Any]:
        """What a run writes down about its data, as JSON."""
        return {
            "source": self.source,
            "spec": {
                "shape": list(self.spec.shape),
                "levels": self.spec.levels,
                "classes": self.spec.classes,
            },
            "sizes": {name: len(getattr(self, name)) for name in SPLITS},
            "made": dict(self.made),
            "duplicates_left_out": self.duplicates,
            "classes": list(self.classes),
            "fingerprint": self.fingerprint,
            "skipped": list(self.skipped),
        }

    def write_splits(self, path: Path) -> None:
        """Write which examples of the source (files of a folder, rows of anything else) form which split, as JSON."""
        write_json(path, {name: list(self.names[name]) for name in SPLITS})


def fingerprint(splits: Mapping[str, Split], levels: int, classes: tuple[str, ...]) -> str:
    """SHA-256 (hex) over shapes, levels, classes, and the values and labels of each split."""
    digest = hashlib.sha256(json.dumps([levels, classes]).encode())
    for name in SPLITS:
        split = splits[name]
        digest.update(json.dumps([name, list(split.x.shape), split.labels is not None]).encode())
        rows = max(1, CHUNK // max(1, split.x[0].numel()))
        for first in range(0, len(split), rows):
            digest.update(split.x[first : first + rows].numpy().data)
        if split.labels is not None:
            digest.update(split.labels.numpy().astype("<i8").data)
    return digest.hexdigest()
