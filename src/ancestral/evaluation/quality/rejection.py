"""What rejection sampling buys and costs: measures over the share of the samples that is kept.

Razavi et al., 2019, https://arxiv.org/abs/1906.00446, section 3.4 and figure 7.
"""

import statistics
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ancestral.batch import Batch
from ancestral.errors import UserError
from ancestral.evaluation.batches import batches
from ancestral.evaluation.measurement import Result
from ancestral.evaluation.quality.compared import Compared
from ancestral.evaluation.quality.score import accuracies
from ancestral.evaluation.rejection import kept
from ancestral.figures import Figure
from ancestral.measures import frechet_distance, overlap
from ancestral.media import Pixels
from ancestral.media.plot import plot
from ancestral.training import classifier_of

SHARES = (1.0, 0.5, 0.25, 0.125)
_KEYS = {
    "precision": "precision",
    "recall": "recall",
    "frechet_distance": "Fréchet distance",
    "classification_accuracy_score": "accuracy score",
}


def applies(compared: Compared) -> bool:
    """Where samples have classes of which none is rejected yet."""
    return compared.samples.labels is not None and compared.sampling.get("keep", 1.0) == 1.0


def measure(compared: Compared) -> Result:
    """As many samples at each share: the likeliest of the first n, of the first 2 n, and so on."""
    labels = compared.samples.labels
    assert labels is not None
    n = int(compared.n * min(SHARES))
    if n <= compared.fake.shape[1]:
        least = int((compared.fake.shape[1] + 1) / min(SHARES))
        problem = f"expected at least {least} samples to keep an eighth of, got {compared.n}"
        raise UserError(problem, "raise --samples, or measure with other features")
    probability = _probabilities(compared, labels)
    real = compared.dataset.split(compared.split).some(n)
    features = compared.features(real.x, "features of real examples")
    curves: dict[str, list[float]] = {key: [] for key in _KEYS}
    for share in SHARES:
        first = slice(0, round(n / share))
        counts = torch.bincount(labels[:n].long(), minlength=compared.dataset.spec.classes)
        chosen = kept(probability[first], labels[first].long(), counts)
        fake = compared.fake[chosen]
        both = overlap(features, fake)
        curves["precision"].append(both.precision)
        curves["recall"].append(both.recall)
        curves["frechet_distance"].append(frechet_distance(features, fake))
        part = Batch(compared.samples.x[chosen], labels=labels[chosen])
        curves["classification_accuracy_score"].append(statistics.mean(accuracies(compared, part)))
    figures = [
        _figure(compared, key, share, value, n)
        for key, values in curves.items()
        for share, value in zip(SHARES, values, strict=True)
    ]
    return Result(figures=figures, pictures={"rejection": lambda: _picture(curves)})


@torch.no_grad()
def _probabilities(compared: Compared, labels: Tensor) -> Tensor:
    """The probability of each sample's class by the gate, which is neither the extractor nor the scorer."""
    gate = classifier_of(compared.dataset, "gate", progress=compared.progress)
    found = []
    for part in batches(compared.n, "gate", device=gate.device, show=compared.progress):
        probabilities = gate.probabilities(compared.samples.x[part].to(gate.device)).cpu()
        found.append(probabilities.gather(1, labels[part].long()[:, None])[:, 0])
    return torch.cat(found)


def _figure(compared: Compared, key: str, share: float, value: float, n: int) -> Figure:
    better: Any = "lower" if key == "frechet_distance" else "higher"
    sampling = dict(compared.sampling) | {"keep": share}
    return Figure(
        id=f"kept_{round(1000 * share):04d}_{key}",
        name=f"{_KEYS[key]}, {share:.3g} kept",
        value=value,
        quantity=f"{_KEYS[key]} of {n} samples",
        better=better,
        provenance=replace(compared.provenance(), n=n, sampling=sampling),
    )


def _picture(curves: dict[str, list[float]]) -> Pixels:
    panels = {_KEYS[key]: values for key, values in curves.items()}
    labels = [f"{share:.3g}" for share in SHARES]
    return plot(panels, range(len(SHARES)), x="share of each class that is kept", labels=labels)
