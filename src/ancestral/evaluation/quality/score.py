"""Classification accuracy score: what a classifier learns from samples alone (Ravuri & Vinyals, 2019).

https://arxiv.org/abs/1905.10887
"""

import math
import statistics
from dataclasses import replace

import torch

from ancestral.batch import Batch
from ancestral.capabilities import Reconstructs
from ancestral.data import Dataset
from ancestral.evaluation.batches import batches
from ancestral.evaluation.measurement import Result
from ancestral.evaluation.quality.compared import Compared
from ancestral.figures import Figure
from ancestral.measures.classifier import Classifier
from ancestral.training import classifier_of

_TRAININGS = 3


def applies(compared: Compared) -> bool:
    """Where the classes are known that were asked for, and real examples have theirs."""
    splits = compared.dataset.train, compared.dataset.validation, compared.dataset.split(compared.split)
    return compared.samples.labels is not None and all(split.labels is not None for split in splits)


def measure(compared: Compared) -> Result:
    """Three trainings each on samples, on as many real examples, and on reconstructions of these."""
    dataset, n = compared.dataset, compared.n
    generator = torch.Generator().manual_seed(compared.seed)
    real = dataset.train[torch.randperm(len(dataset.train), generator=generator)[:n]]
    sets = {"samples": compared.samples, "real": real}
    if isinstance(compared.model, Reconstructs):
        model, device = compared.model, compared.model.device
        parts = batches(n, "reconstructing", device=device, show=compared.progress)
        versions = torch.cat([model.reconstruct(real.x[part].to(device)).cpu() for part in parts])
        sets["reconstructions"] = replace(real, x=versions)
    scores = {name: accuracies(compared, part) for name, part in sets.items()}
    recipe = Classifier.recipes["score"]
    mean = statistics.mean(scores["samples"])
    # Student's t of two degrees of freedom, in closed form: 95 % of what trainings on such samples give.
    half = 0.95 * math.sqrt(2 / (1 - 0.95**2)) * statistics.stdev(scores["samples"]) / math.sqrt(_TRAININGS)
    references = {}
    if "reconstructions" in scores:
        references["reconstructions"] = statistics.mean(scores["reconstructions"])
    figure = Figure(
        id="classification_accuracy_score",
        name="accuracy score (CAS)",
        value=mean,
        quantity="accuracy of a classifier of samples",
        better="higher",
        interval=(mean - half, mean + half),
        floor=(min(scores["real"]), max(scores["real"])),
        references=references,
        provenance=compared.provenance(
            features=f"classifiers of width {recipe.model.width} that learn from samples alone",
            weights="",
            accuracy=None,
            seeds=tuple(range(_TRAININGS)),
        ),
    )
    return Result(figures=[figure])


def accuracies(compared: Compared, training: Batch, trainings: int = _TRAININGS) -> list[float]:
    """Shares of the reference that classifiers put into the right class, which learn from ``training``."""
    dataset = compared.dataset
    learned = Dataset(
        source=f"{len(training)} examples in place of {dataset.source}",
        spec=dataset.spec,
        train=replace(training, contexts=()),
        validation=dataset.validation,
        test=dataset.split(compared.split),
        classes=dataset.classes,
    )
    return [
        accuracy(classifier_of(learned, "score", seed=seed, progress=compared.progress), learned.test)
        for seed in range(trainings)
    ]


@torch.no_grad()
def accuracy(classifier: Classifier, examples: Batch) -> float:
    """The share of examples whose class it finds."""
    assert examples.labels is not None
    parts = batches(len(examples), "accuracy", device=classifier.device, show=False)
    found = torch.cat(
        [classifier.logits(examples.x[part].to(classifier.device)).argmax(1).cpu() for part in parts]
    )
    return float((found == examples.labels.long()).double().mean())
