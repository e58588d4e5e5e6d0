"""Where the samples come from that are measured: a model draws them, or somebody has them."""

import hashlib
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ancestral.batch import Batch
from ancestral.data import Dataset
from ancestral.errors import UserError, check_at_least
from ancestral.evaluation.extractors import Extractor, Features
from ancestral.evaluation.given import read_examples
from ancestral.evaluation.quality.compared import Compared
from ancestral.evaluation.rejection import check_keep
from ancestral.evaluation.sharded_samples import Manifest, sample_shards
from ancestral.evaluation.shards import MANIFEST
from ancestral.evaluation.subject import Subject
from ancestral.processes import own_process
from ancestral.records import read_record
from ancestral.sampling import Sampling
from ancestral.training import classifier_of
from ancestral.weights import state_checksum

SAMPLES = 10_000
"""Samples that are measured, where there are as many real examples."""
_CLASSES = 1000
"""Samples in which each class has its share."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """On what terms samples are measured: the arguments of ``evaluate``."""

    dataset: Dataset
    split: str
    samples: int | None
    features: Features
    seed: int
    progress: bool
    sampling: Sampling = field(default_factory=Sampling)
    keep: float = 1.0

    @property
    def n(self) -> int:
        """How many samples: as many as are asked for, else as there can be."""
        if self.samples is not None:
            check_at_least(1, samples=self.samples)
            return self.samples
        return min(SAMPLES, len(self.dataset.split(self.split)), len(self.dataset.train))

    def compared(self, device: torch.device | str, **values: Any) -> Compared:
        """Samples, of which the ``values`` tell, beside real examples."""
        extractor = Extractor.find(self.features, self.dataset, device, progress=self.progress)
        return Compared(
            dataset=self.dataset, split=self.split, extractor=extractor, device=device, seed=self.seed,
            progress=self.progress, **values,
        )  # fmt: skip


def of_images(path: Path, terms: Terms, device: torch.device | str) -> Compared:
    """Images that somebody has, beside real examples."""
    batch, known = read_examples(path, terms.dataset)
    if terms.samples is not None and terms.samples > len(batch):
        problem = f"expected at least {terms.samples} images to measure, got {len(batch)}"
        raise UserError(problem, "lower --samples")
    n = min(terms.n, len(batch))
    # In folders they are in the order of their classes, in shards these come in turn.
    chosen = batch[torch.randperm(len(batch), generator=torch.Generator().manual_seed(terms.seed))[:n]]
    labeled = chosen.labels is not None
    return terms.compared(device, n=n, draw=lambda: chosen, labeled=labeled, sampling=known)


def of_model(subject: Subject, terms: Terms, *, write: bool) -> Compared:
    """Samples of a model, which are drawn when they are needed, beside real examples."""
    model, dataset, sampling = subject.model, terms.dataset, terms.sampling
    _, processes = own_process()
    if processes > 1:
        problem = f"expected one process to measure samples, got {processes}"
        raise UserError(problem, "draw them with torchrun … sample --format shards, and evaluate that folder")
    if model.spec.contexts:
        problem = f"expected a model that draws by itself, got {type(model).__name__} which is given contexts"
        raise UserError(problem, "measure its likelihood")
    model.check_sampling(sampling)
    check_keep(model, terms.keep)
    known: dict[str, Any] = dict(sampling.changes())
    gate = None
    if terms.keep < 1:
        gate = classifier_of(dataset, "gate", device=model.device, progress=terms.progress).to(model.device)
        known |= {"keep": terms.keep, "gate": state_checksum(gate)[:8]}
    n, weights, labels = terms.n, state_checksum(model), _classes(subject, dataset)
    asked = hashlib.sha256(repr(labels).encode()).hexdigest()  # other data may have classes as often
    parts = [f"seed{terms.seed}", *(f"{k}{v}" for k, v in known.items()), weights[:8], asked[:4]]
    name = "-".join(parts)

    def draw() -> Batch:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            if write and subject.run is not None and os.access(subject.run.path, os.W_OK):
                folder = subject.run.path / "measured"  # drawn once, and gone on with
            folder /= name
            there = folder / MANIFEST
            most = max(n, read_record(Manifest, there).n if there.is_file() else 0)
            how = asdict(sampling) | {"seed": terms.seed, "progress": terms.progress}
            batch = sample_shards(model, most, folder, labels, keep=terms.keep, gate=gate, **how).batch()
        return subject.with_own_labels(batch[:n], dataset)

    return terms.compared(
        model.device, n=n, draw=draw, labeled=bool(labels), sampling=known, model=model, weights=weights
    )


def _classes(subject: Subject, dataset: Dataset) -> list[int]:
    """Classes to ask for, in no order, each as often as in the data; none if they are not the model's."""
    model, labels = subject.model, subject.with_own_labels(dataset.train, dataset).labels
    if not model.sample_classes or labels is None:
        return []
    counts = torch.bincount(labels.long(), minlength=model.sample_classes).double()
    # Largest remainders: of so many places each class has its share to within one.
    places = max(_CLASSES, model.sample_classes)
    shares = counts / counts.sum() * places
    whole = shares.floor()
    missing = places - int(whole.sum())
    whole[(shares - whole).argsort(descending=True, stable=True)[:missing]] += 1
    classes = torch.arange(len(whole)).repeat_interleave(whole.long())
    order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(0))
    return [int(c) for c in classes[order]]
