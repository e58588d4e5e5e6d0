"""Classification accuracy score: what a classifier learns from samples alone (Ravuri & Vinyals, 2019).

https://arxiv.org/abs/1905.10887
"""

import hashlib
import json
import math
import statistics
from dataclasses import dataclass, replace

import torch

from ancestral.batch import Batch
from ancestral.configuration import to_json
from ancestral.data import Dataset
from ancestral.errors import UserError
from ancestral.evaluation.batches import batches
from ancestral.evaluation.measurement import Result
from ancestral.evaluation.quality.compared import Compared
from ancestral.evaluation.quality.samples import extremes
from ancestral.figures import Figure, Provenance
from ancestral.measures.classifier import Classifier
from ancestral.progress import watched

_TRAININGS = 3
_NORMAL = 1.96
_STUDENT = 0.95 * math.sqrt(2 / (1 - 0.95**2))
"""Quantile of |t| at 95 % for three trainings, of two degrees of freedom."""


def check(compared: Compared) -> None:
    """Classes have to be known that were asked for, those of real examples too, and no sample rejected."""
    splits = compared.dataset.train, compared.dataset.validation, compared.dataset.split(compared.split)
    if not compared.labeled or any(split.labels is None for split in splits):
        problem = "expected samples and examples whose classes are known to score, got others"
        raise UserError(problem, "leave score out of --measures")
    if compared.rejected:
        problem = "expected all samples to score, got those that a classifier chose"
        raise UserError(problem, "leave --keep or score out")


def measure(compared: Compared) -> Result:
    """Three trainings each on samples, on as many real examples, and on reconstructions of these."""
    real = compared.dataset.train[compared.some(len(compared.dataset.train), "score")]
    scores = {"samples": accuracies(compared, compared.samples)}
    floor = extremes(accuracies(compared, real).values)
    if (versions := compared.reconstructed(real.x)) is not None:
        scores["reconstructions"] = accuracies(compared, replace(real, x=versions))
    figures = []
    for name, found in scores.items():
        of = "" if name == "samples" else f" of {name}"
        figures.append(
            Figure(
                id=f"classification_accuracy_score{of.replace(' ', '_')}",
                name=f"CAS{of}" if of else "accuracy score (CAS)",
                value=found.mean,
                quantity=f"accuracy of a classifier of {name}",
                better="higher",
                interval=found.interval,
                floor=floor,
                references={"classes at random": 1 / compared.dataset.spec.classes},
                provenance=provenance(compared),
            )
        )
    return Result(figures=figures)


def provenance(compared: Compared) -> Provenance:
    """What a score is taken with: classifiers of one recipe, however they come out."""
    recipe = Classifier.recipes["score"]
    settings = json.dumps([to_json(recipe.model), to_json(recipe.stages)])
    return compared.provenance(
        features=f"classifiers of width {recipe.model.width} that learn from samples alone",
        weights=hashlib.sha256(settings.encode()).hexdigest(),
        accuracy=None,
        seeds=(compared.seed, *range(_TRAININGS)),
    )


@dataclass(frozen=True)
class Accuracies:
    """What several trainings on one set reach on the same ``n`` real examples."""

    values: list[float]
    n: int

    @property
    def mean(self) -> float:
        """Their mean."""
        return statistics.mean(self.values)

    @property
    def interval(self) -> tuple[float, float]:
        """Of the mean: what other trainings, and as many other real examples, would make of it."""
        trainings = _STUDENT * statistics.stdev(self.values) / math.sqrt(len(self.values))
        examples = _NORMAL * math.sqrt(self.mean * (1 - self.mean) / self.n)
        half = math.hypot(trainings, examples)
        return max(self.mean - half, 0.0), min(self.mean + half, 1.0)


def accuracies(compared: Compared, training: Batch) -> Accuracies:
    """Shares of the whole split that classifiers put into the right class, which learn from ``training``."""
    dataset = compared.dataset
    learned = Dataset(
        source=f"{len(training)} examples in place of {dataset.source}",
        spec=dataset.spec,
        train=replace(training, contexts=()),
        validation=dataset.validation,
        test=dataset.split(compared.split),
        classes=dataset.classes,
    )
    found = []
    for seed in watched(range(_TRAININGS), "training classifiers of samples", show=compared.progress):
        classifier = compared.classifier("score", learned, seed)
        found.append(accuracy(classifier, learned.test))
    return Accuracies(found, len(learned.test))


@torch.no_grad()
def accuracy(classifier: Classifier, examples: Batch) -> float:
    """The share of examples whose class it finds."""
    hits = []
    for part in batches(len(examples), "accuracy", device=classifier.device, show=False):
        batch = examples[part].to(classifier.device)
        assert batch.labels is not None
        hits.append(classifier.hits(batch.x, batch.labels).cpu())
    return float(torch.cat(hits).mean())
