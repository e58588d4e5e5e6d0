"""How near samples are to real examples, in features: distances, overlap, agreement with labels, copies."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ancestral.errors import UserError
from ancestral.evaluation.measurement import Result
from ancestral.evaluation.quality.compared import Compared
from ancestral.figures import Figure
from ancestral.measures import (
    Copying,
    Interval,
    bootstrap,
    copying,
    frechet_distance,
    kernel_distance,
    overlap,
    subsampled_all,
)
from ancestral.measures.inception import Inception
from ancestral.media import Pixels, comparison

_SHOWN = 16

_NAMES = {
    "frechet_distance": ("Fréchet distance", "lower", (0, math.inf)),
    "kernel_distance": ("kernel distance", "lower", (-math.inf, math.inf)),
    "precision": ("precision", "higher", (0, 1)),
    "recall": ("recall", "higher", (0, 1)),
    "density": ("density", "higher", (0, math.inf)),
    "coverage": ("coverage", "higher", (0, 1)),
}
"""What each is called, which of two values is the better one, and between what it lies."""


def applies(compared: Compared) -> bool:
    """Always."""
    return True


def measure(compared: Compared) -> Result:
    """Each with its floor, what known faults get, and an interval."""
    least = compared.real.shape[1] + 1
    if compared.n < least:
        problem = f"expected at least {least} samples for {least - 1} features, got {compared.n}"
        raise UserError(problem, "raise --samples, or measure with other features")
    figures = _distances(compared)
    if compared.samples.labels is not None and compared.hits is not None:
        figures.append(_agreement(compared, compared.samples.labels, compared.hits))
    copies = copying(compared.fake, compared.real, compared.trained)
    figures.append(_copies(compared, copies))
    return Result(figures=figures, pictures={"nearest": lambda: _nearest(compared, copies)})


def _all(real: Tensor, fake: Tensor) -> dict[str, float]:
    """All measures of two sets of features, by their ids."""
    found = {"frechet_distance": frechet_distance(real, fake), "kernel_distance": kernel_distance(real, fake)}
    return found | vars(overlap(real, fake))


def _distances(compared: Compared) -> list[Figure]:
    real, inception = compared.real, isinstance(compared.extractor.network, Inception)
    values = _all(real, compared.fake)
    floors = [_all(real, features) for features in compared.floors]
    faults = {name: _all(real, features) for name, features in compared.faults.items()}
    intervals = subsampled_all(_all, real, compared.fake, seed=compared.seed)
    figures = []
    for id, (name, better, (least, most)) in _NAMES.items():
        if inception and id in ("frechet_distance", "kernel_distance"):
            name = {"frechet_distance": "FID", "kernel_distance": "KID"}[id]  # noqa: PLW2901
        figures.append(
            Figure(
                id=id,
                name=name,
                value=values[id],
                quantity=f"{name} of features",
                better=better,  # type: ignore[arg-type]
                interval=(max(intervals[id].low, least), min(intervals[id].high, most)),
                floor=_range([floor[id] for floor in floors]),
                references={fault: found[id] for fault, found in faults.items()},
                provenance=compared.provenance(),
            )
        )
    return figures


def _agreement(compared: Compared, labels: Tensor, hits: Tensor) -> Figure:
    """The share of samples in which the classifier finds the class that was asked for."""
    found = compared.agreement(compared.fake, labels)
    return Figure(
        id="label_agreement",
        name="label agreement",
        value=float(found.mean()),
        quantity="label agreement",
        better="higher",
        interval=_ends(bootstrap(found, seed=compared.seed)),
        floor=_ends(bootstrap(hits, seed=compared.seed)),
        references={"at random": 1 / compared.dataset.spec.classes},
        provenance=compared.provenance(),
    )


def _copies(compared: Compared, copies: Copying) -> Figure:
    """How often a sample is nearer to a training image than a held-out one is."""

    def auroc(samples: Tensor, real: Tensor) -> Mapping[str, float]:
        return {"auroc": copying(samples, real, compared.trained).auroc}

    half = torch.cat([compared.floors[0][: compared.n // 2], compared.real[compared.n // 2 :]])
    interval = subsampled_all(auroc, compared.fake, compared.real, repeats=10, seed=compared.seed)["auroc"]
    return Figure(
        id="copies_auroc",
        name="copies",
        value=copies.auroc,
        quantity="AUROC of nearness to training examples",
        note=".5 without",
        interval=_ends(interval),
        floor=_range([auroc(*compared.halves(i))["auroc"] for i in range(3)]),
        references={"half of them copies": copying(half, compared.real, compared.trained).auroc},
        provenance=compared.provenance(),
    )


def _nearest(compared: Compared, copies: Copying) -> Pixels:
    """Samples above their nearest training images: first the nearest of all, then evenly to the farthest."""
    order = copies.distances.argsort()
    first = order[: _SHOWN // 2]
    places = torch.linspace(0, len(order) - 1, _SHOWN - len(first)).long()
    chosen = torch.cat([first, order[places]])
    neighbors = compared.dataset.train.x[copies.indices[chosen]]
    return comparison(compared.dataset.spec, compared.samples.x[chosen], neighbors)


def _range(values: list[float]) -> tuple[float, float]:
    return min(values), max(values)


def _ends(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high
