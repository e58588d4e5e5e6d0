"""Samples beside the real examples that they are measured against."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from ancestral.batch import Batch
from ancestral.capabilities import Reconstructs
from ancestral.data import Dataset
from ancestral.errors import UserError
from ancestral.evaluation.batches import batches
from ancestral.evaluation.extractors import Extractor
from ancestral.evaluation.measurement import Result
from ancestral.figures import Provenance
from ancestral.measures.classifier import Classifier
from ancestral.model import Model
from ancestral.training import Role, classifier_of
from ancestral.training.randomness import derive

HELD_OUT = ("validation", "test")
"""The splits that samples may be measured against."""
_DRAWS = 3
"""Sets of real examples by which the floor of a measure is found."""
_REPEATED = 100
"""Times that each of few images stands in a set of repeated ones."""
_NOISE = 0.05
"""Standard deviation of slight noise, as a share of the range of values."""
_PART = 256


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Samples, and as many real examples of a split that no model was trained on.

    Samples are drawn when they are first needed: what cannot be measured is refused before.
    """

    n: int
    """Samples, and real examples."""
    draw: Callable[[], Batch]
    """Gives the samples, in no order that means anything."""
    labeled: bool
    """Whether the samples have classes of the data."""
    sampling: Mapping[str, Any]
    """How they are drawn, as far as it is known."""
    dataset: Dataset
    split: str
    extractor: Extractor
    model: Model | None = None
    """What drew them, if that is at hand."""
    weights: str = ""
    """Its checksum."""
    device: torch.device | str = "cpu"
    seed: int = 0
    progress: bool = False

    def __post_init__(self) -> None:
        if self.split not in HELD_OUT:
            problem = f"expected a split that no model was trained on, got {self.split}"
            raise UserError(problem, f"choose {' or '.join(HELD_OUT)}")
        there, training = len(self.dataset.split(self.split)), len(self.dataset.train)
        if self.n > min(there, training):
            problem = f"expected as many real examples as the {self.n:,} samples"
            got = f"got {there:,} in {self.split} and {training:,} in train"
            raise UserError(f"{problem}, {got}", f"measure at most {min(there, training):,} samples")
        gate = self.sampling.get("gate")
        if gate is not None and self.extractor.weights.startswith(gate):
            problem = "expected features of another network than that which chose the samples, got the same"
            raise UserError(problem, "choose --features classifier or imagenet")

    @property
    def rejected(self) -> bool:
        """Whether samples were chosen among more."""
        return self.sampling.get("keep", 1.0) != 1.0

    @cached_property
    def samples(self) -> Batch:
        """The samples."""
        return self.draw()

    @cached_property
    def reference(self) -> Batch:
        """The real examples, at random from the split."""
        whole = self.dataset.split(self.split)
        return whole[self.some(len(whole), "reference")]

    def provenance(self, **changes: Any) -> Provenance:
        """What a measure of the features is taken with; ``changes`` say what is different in another."""
        values: dict[str, Any] = {
            "features": self.extractor.name,
            "weights": self.extractor.weights,
            "accuracy": None if self.hits is None else float(self.hits.mean()),
            "data": self.dataset.source,
            "fingerprint": self.dataset.fingerprint,
            "split": self.split,
            "n": self.n,
            "sampling": dict(self.sampling),
            "model": self.weights,
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

        None unless it is a classifier of these classes, and the real examples have labels.
        """
        labels = self.reference.labels
        return None if labels is None else self.agreement(self.real, labels)

    def agreement(self, features: Tensor, labels: Tensor) -> Tensor | None:
        """Whether the extractor finds these classes in features ``(N, D)``: 0 or 1; None if it knows none."""
        classifier = self.extractor.classifier_of(self.dataset)
        if classifier is None:
            return None
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
        return [self.trained[self.some(len(self.trained), "floor", i)] for i in range(_DRAWS)]

    def reconstructed(self, x: Tensor) -> Tensor | None:
        """The model's versions of images, on the CPU; None if there is no model that makes any."""
        model = self.model
        if not isinstance(model, Reconstructs):
            return None
        parts = batches(len(x), "reconstructing", device=model.device, show=self.progress)
        return torch.cat([model.reconstruct(x[part].to(model.device)).cpu() for part in parts])

    @cached_property
    def faults(self) -> dict[str, Tensor]:
        """Features of sets with a known fault, by its name.

        One is what the model's reconstructions lose: its samples can hardly be better than these.
        """
        few = self.trained[self.some(len(self.trained), "few")[: max(2, self.n // _REPEATED)]]
        found = {f"{len(few)} images repeated": few.repeat(-(-self.n // len(few)), 1)[: self.n]}
        if (noisy := self._noisy()) is not None:
            found["slight noise"] = noisy
        labels = self.dataset.train.labels
        if labels is not None and self.dataset.spec.classes > 1:
            half = (labels < self.dataset.spec.classes // 2).nonzero()[:, 0]
            if len(half) >= self.n:
                found["half of the classes"] = self.trained[half[self.some(len(half), "half")]]
        versions = self.reconstructed(self.dataset.train.x[self.some(len(self.trained), "floor", 0)])
        if versions is not None:
            found["reconstructions"] = self.features(versions, "features of reconstructions")
        return found

    def _noisy(self) -> Tensor | None:
        """Features of images with noise; None where levels are too few for it to be slight."""
        levels = self.dataset.spec.levels
        if levels is None or _NOISE * (levels - 1) < 0.5:
            return None
        generator = torch.Generator().manual_seed(derive(self.seed, "noise"))
        found = []
        for part in self.some(len(self.trained), "noise").split(_PART):
            x = self.dataset.train.x[part]
            noise = torch.randn(x.shape, generator=generator) * (_NOISE * (levels - 1))
            found.append(self.extractor((x + noise).round().clamp(0, levels - 1).to(x.dtype)))
        return torch.cat(found)

    def classifier(self, role: Role, dataset: Dataset | None = None, seed: int = 0) -> Classifier:
        """A classifier of the data, or of others, on the device. A training of the former is shown."""
        shown = self.progress and dataset is None
        found = classifier_of(dataset or self.dataset, role, seed=seed, device=self.device, progress=shown)
        return found.to(self.device)

    def some(self, among: int, *parts: int | str) -> Tensor:
        """As many places as there are samples, of so many, at random."""
        generator = torch.Generator().manual_seed(derive(self.seed, *parts))
        return torch.randperm(among, generator=generator)[: self.n]


class QualityMeasurement(Protocol):
    """One file of ``ancestral.evaluation.quality``."""

    def check(self, compared: Compared) -> None:
        """Raise UserError unless the samples, which need not be drawn yet, can be measured so."""

    def measure(self, compared: Compared) -> Result:
        """Measure them."""
