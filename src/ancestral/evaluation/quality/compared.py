"""Samples beside the real examples that they are measured against."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from ancestral.batch import Batch
from ancestral.data import Dataset
from ancestral.errors import UserError
from ancestral.evaluation.extractors import Extractor
from ancestral.evaluation.measurement import Result
from ancestral.figures import Provenance
from ancestral.model import Model
from ancestral.training.randomness import derive

_DRAWS = 3
"""Sets of real examples by which the floor of a measure is found."""
_REPEATED = 100
"""Times that each of few images stands in a set of repeated ones."""
_NOISE = 0.05
"""Standard deviation of slight noise, as a share of the range of values."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Samples, and as many real examples of a split that no model was trained on."""

    samples: Batch
    """With labels if the classes are known that were asked for."""
    sampling: Mapping[str, Any]
    """How they were drawn."""
    dataset: Dataset
    split: str
    extractor: Extractor
    model: Model | None = None
    """What drew them, if that is at hand."""
    seed: int = 0
    progress: bool = False

    def __post_init__(self) -> None:
        n, there = len(self.samples), len(self.dataset.split(self.split))
        if n > min(there, len(self.dataset.train)):
            sizes = f"{there:,} in {self.split} and {len(self.dataset.train):,} in train"
            problem = f"expected as many real examples as the {n:,} samples, got {sizes}"
            raise UserError(problem, f"measure at most {min(there, len(self.dataset.train)):,} samples")

    @property
    def n(self) -> int:
        """Samples, and real examples."""
        return len(self.samples)

    @property
    def reference(self) -> Batch:
        """The real examples, evenly from the split."""
        return self.dataset.split(self.split).some(self.n)

    def provenance(self, **changes: Any) -> Provenance:
        """What a measure of the features is taken with; ``changes`` say what is different in another."""
        classifier = self.extractor.classifier
        accuracy = None
        if classifier is not None and self.hits is not None:
            accuracy = float(self.hits.mean())
        values: dict[str, Any] = {
            "features": self.extractor.name,
            "weights": self.extractor.weights,
            "accuracy": accuracy,
            "data": self.dataset.source,
            "fingerprint": self.dataset.fingerprint,
            "split": self.split,
            "n": self.n,
            "sampling": dict(self.sampling),
            "seeds": (self.seed,),
        }
        return Provenance(**values | changes)

    def features(self, x: Tensor, what: str) -> Tensor:
        """Features of images ``(N, *shape)``, ``(N, D)`` on the CPU."""
        return self.extractor(x, what, show=self.progress)

    @cached_property
    def fake(self) -> Tensor:
        """Features of the samples."""
        return self.features(self.samples.x, "features of samples")

    @cached_property
    def real(self) -> Tensor:
        """Features of the reference."""
        return self.features(self.reference.x, "features of real examples")

    @cached_property
    def hits(self) -> Tensor | None:
        """Whether the extractor finds the class of each real example, ``(N,)`` of 0 and 1.

        None unless it is a classifier, and the real examples have labels.
        """
        labels = self.reference.labels
        if self.extractor.classifier is None or labels is None:
            return None
        return self.agreement(self.real, labels)

    def agreement(self, features: Tensor, labels: Tensor) -> Tensor:
        """Whether the extractor, a classifier, finds these classes in features ``(N, D)``: 0 or 1."""
        classifier = self.extractor.classifier
        assert classifier is not None
        with torch.no_grad():
            found = classifier.head(features.to(classifier.device)).argmax(1).cpu()
        return (found == labels.long()).double()

    @cached_property
    def trained(self) -> Tensor:
        """Features of all training examples."""
        return self.features(self.dataset.train.x, "features of training examples")

    @cached_property
    def floors(self) -> list[Tensor]:
        """Features of training examples, sets of n at random, which stand for perfect samples."""
        return [self.trained[self._some(len(self.trained), "floor", i)] for i in range(_DRAWS)]

    @cached_property
    def faults(self) -> dict[str, Tensor]:
        """Features of sets with a known fault, by its name."""
        few = self.trained[self._some(len(self.trained), "few")[: max(2, self.n // _REPEATED)]]
        found = {f"each image {_REPEATED} times": few.repeat(-(-self.n // len(few)), 1)[: self.n]}
        x = self.dataset.train.x[self._some(len(self.trained), "noise")]
        if (levels := self.dataset.spec.levels) is not None:
            generator = torch.Generator().manual_seed(derive(self.seed, "noise"))
            noise = torch.randn(x.shape, generator=generator) * (_NOISE * (levels - 1))
            noisy = (x + noise).round().clamp(0, levels - 1).to(x.dtype)
            found["slight noise"] = self.features(noisy, "features of noisy images")
        labels = self.dataset.train.labels
        if labels is not None and self.dataset.spec.classes > 1:
            half = (labels < self.dataset.spec.classes // 2).nonzero()[:, 0]
            if len(half) >= self.n:
                found["half of the classes"] = self.trained[half[self._some(len(half), "half")]]
        return found

    def halves(self, draw: int) -> tuple[Tensor, Tensor]:
        """Features of the real examples in two halves, at random."""
        order = self._some(self.n, "halves", draw)
        first, second = order.chunk(2)
        return self.real[first], self.real[second]

    def _some(self, among: int, *parts: int | str) -> Tensor:
        """As many places as there are samples, of so many, at random."""
        generator = torch.Generator().manual_seed(derive(self.seed, *parts))
        return torch.randperm(among, generator=generator)[: self.n]


class QualityMeasurement(Protocol):
    """One file of ``ancestral.evaluation.quality``."""

    def applies(self, compared: Compared) -> bool:
        """Whether the samples can be measured so."""

    def measure(self, compared: Compared) -> Result:
        """Measure them."""
