"""How near samples are to real examples, in features: distances, overlap, agreement with labels, copies."""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from ancestral.evaluation.measurement import Result
from ancestral.evaluation.quality.compared import Compared
from ancestral.figures import Figure
from ancestral.measures import (
    Copying,
    Interval,
    auroc,
    bootstrap,
    copying,
    frechet_distance,
    kernel_distance,
    overlap,
    subsampled_all,
)
from ancestral.media import Pixels, comparison

_SHOWN = 16
_DRAWS = 3

NAMES: dict[str, tuple[str, Literal["lower", "higher"], tuple[float, float]]] = {
    "frechet_distance": ("Fréchet distance", "lower", (0, math.inf)),
    "kernel_distance": ("kernel distance", "lower", (-math.inf, math.inf)),
    "precision": ("precision", "higher", (0, 1)),
    "recall": ("recall", "higher", (0, 1)),
    "density": ("density", "higher", (0, math.inf)),
    "coverage": ("coverage", "higher", (0, 1)),
}
"""What each is called, which of two values is the better one, and between what it lies."""
_PUBLISHED = {"frechet_distance": "FID", "kernel_distance": "KID"}
"""What two of them are called on the features of Inception, and on no others."""


def check(compared: Compared) -> None:
    """All samples can be measured so."""


def measure(compared: Compared) -> Result:
    """Each with its floor, what known faults get, and an interval."""
    figures = distances(compared)
    labels = compared.samples.labels
    found = None if labels is None else compared.agreement(compared.fake, labels)
    if found is not None and compared.hits is not None:
        figures.append(_agreement(compared, found, compared.hits))
    copies = copying(compared.fake, compared.real, compared.trained)
    figures.append(_copies(compared, copies))
    return Result(figures=figures, pictures={"nearest": lambda: _nearest(compared, copies)})


def measured(real: Tensor, fake: Tensor) -> dict[str, float]:
    """All measures of two sets of features ``(N, D)``, by their ids.

    The Fréchet distance takes more examples than features: with fewer, it is the rank of the covariances that
    it sees.
    """
    found = vars(overlap(real, fake)) | {"kernel_distance": kernel_distance(real, fake)}
    enough = len(real) > real.shape[1]
    return found | ({"frechet_distance": frechet_distance(real, fake)} if enough else {})


def distances(compared: Compared) -> list[Figure]:
    """Fréchet and kernel distance, precision, recall, density, coverage."""
    real = compared.real
    values = measured(real, compared.fake)
    floors = [measured(real, features) for features in compared.floors]
    faults = {name: measured(real, features) for name, features in compared.faults.items()}
    intervals = subsampled_all(measured, real, compared.fake, seed=compared.seed)
    figures = []
    for id, (name, better, (least, most)) in NAMES.items():
        if id not in values:
            continue
        interval = intervals.get(id)
        shown = _PUBLISHED.get(id, name) if compared.extractor.is_inception else name
        figures.append(
            Figure(
                id=id,
                name=shown,
                value=values[id],
                quantity=f"{shown} of features",
                better=better,
                interval=None if interval is None else _within(interval, least, most),
                floor=extremes([floor[id] for floor in floors]),
                references={fault: found[id] for fault, found in faults.items()},
                provenance=compared.provenance(),
            )
        )
    return figures


def _agreement(compared: Compared, found: Tensor, hits: Tensor) -> Figure:
    """The share of samples in which the classifier finds the class that was asked for."""
    return Figure(
        id="label_agreement",
        name="label agreement",
        value=float(found.mean()),
        quantity="label agreement",
        better="higher",
        interval=_ends(bootstrap(found, seed=compared.seed)),
        floor=_ends(bootstrap(hits, seed=compared.seed)),
        references={"classes at random": 1 / compared.dataset.spec.classes},
        provenance=compared.provenance(),
    )


def _copies(compared: Compared, copies: Copying) -> Figure:
    """How often a sample is nearer to a training image than a held-out one is.

    Between halves of the held-out examples it is what chance makes of .5.
    """

    def between(samples: Tensor, held_out: Tensor) -> Mapping[str, float]:
        return {"auroc": auroc(samples, held_out)}

    near, held_out = copies.distances, copies.held_out_distances
    interval = subsampled_all(between, near, held_out, seed=compared.seed)["auroc"]
    halves = [held_out[compared.some(len(held_out), "halves", i)].chunk(2) for i in range(_DRAWS)]
    half = torch.cat([torch.zeros(len(held_out) // 2).to(held_out), held_out[len(held_out) // 2 :]])
    return Figure(
        id="copies_auroc",
        name="copies",
        value=copies.auroc,
        quantity="AUROC of nearness to training examples",
        note=".5 without",
        interval=(max(interval.low, 0.0), min(interval.high, 1.0)),
        floor=extremes([auroc(*both) for both in halves]),
        references={"half of them copies": auroc(half, held_out)},
        provenance=compared.provenance(),
    )


def _nearest(compared: Compared, copies: Copying) -> Pixels:
    """Samples above their nearest training images: first the nearest of all, then evenly to the farthest."""
    order = copies.distances.argsort()
    first = order[: _SHOWN // 2]
    places = torch.linspace(0, len(order) - 1, min(_SHOWN, len(order)) - len(first)).long()
    chosen = torch.cat([first, order[places]])
    neighbors = compared.dataset.train.x[copies.indices[chosen]]
    return comparison(compared.dataset.spec, compared.samples.x[chosen], neighbors)


def extremes(values: list[float]) -> tuple[float, float]:
    """The least and the most."""
    return min(values), max(values)


def _within(interval: Interval, least: float, most: float) -> tuple[float, float]:
    return max(interval.low, least), min(interval.high, most)


def _ends(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high
