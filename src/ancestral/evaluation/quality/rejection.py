"""What rejection sampling buys and costs: measures over the share of the samples that is kept.

Razavi et al., 2019, https://arxiv.org/abs/1906.00446, section 3.4 and figure 7.
"""

from dataclasses import replace

import torch
from torch import Tensor

from ancestral.batch import Batch
from ancestral.errors import UserError
from ancestral.evaluation.batches import batches
from ancestral.evaluation.measurement import Result
from ancestral.evaluation.quality.compared import Compared
from ancestral.evaluation.quality.samples import NAMES, extremes
from ancestral.evaluation.quality.score import accuracies, provenance
from ancestral.evaluation.rejection import kept, probability_of
from ancestral.figures import Figure
from ancestral.measures import frechet_distance, overlap, subsampled_all
from ancestral.measures.classifier import Classifier
from ancestral.media import Pixels
from ancestral.media.plot import plot
from ancestral.weights import state_checksum

SHARES = (1.0, 0.5, 0.25, 0.125)
SCORE = "classification_accuracy_score"
_KEYS = ("precision", "recall", "frechet_distance", SCORE)


def check(compared: Compared) -> None:
    """Classes have to be known, no sample rejected yet, and an eighth of the samples enough to measure."""
    if not compared.labeled or compared.rejected:
        problem = "expected samples of known classes, none rejected yet, to measure rejection, got others"
        raise UserError(problem, "leave it out of --measures")
    least = int((compared.extractor.dim + 1) / min(SHARES))
    if compared.n < least:
        problem = f"expected at least {least:,} samples to measure an eighth of, got {compared.n:,}"
        raise UserError(problem, "leave rejection out, or choose other features")


def measure(compared: Compared) -> Result:
    """As many samples at each share: the likeliest of the first n, of the first 2 n, and so on."""
    labels = compared.samples.labels
    assert labels is not None
    n = int(compared.n * min(SHARES))
    gate = compared.classifier("gate")
    probability = _probabilities(compared, gate, labels)
    real = compared.real[:n]
    floors = [_measured(real, features[:n]) for features in compared.floors]
    score_floor = extremes(accuracies(compared, _real(compared, n)).values)
    curves: dict[str, list[float]] = {key: [] for key in _KEYS}
    figures = []
    for share in SHARES:
        first = slice(0, round(n / share))
        counts = torch.bincount(labels[:n].long(), minlength=compared.dataset.spec.classes)
        chosen = kept(probability[first], labels[first].long(), counts)
        fake = compared.fake[chosen]
        scores = accuracies(compared, Batch(compared.samples.x[chosen], labels=labels[chosen]))
        values = _measured(real, fake) | {SCORE: scores.mean}
        intervals = subsampled_all(_measured, real, fake, seed=compared.seed)
        sampling = dict(compared.sampling) | {"keep": share, "gate": state_checksum(gate)[:8]}
        for key in _KEYS:
            curves[key].append(values[key])
            taken = provenance(compared) if key == SCORE else compared.provenance()
            bounds = scores.interval if key == SCORE else (intervals[key].low, intervals[key].high)
            figures.append(
                Figure(
                    id=f"kept_{round(1000 * share):04d}_{key}",
                    name=f"{_name(key)}, {share:.3g} kept",
                    value=values[key],
                    quantity=f"{_name(key)} of {n} samples",
                    better="lower" if key == "frechet_distance" else "higher",
                    interval=bounds,
                    floor=score_floor if key == SCORE else extremes([floor[key] for floor in floors]),
                    provenance=replace(taken, n=n, sampling=sampling),
                )
            )
    return Result(figures=figures, pictures={"rejection": lambda: _picture(curves)})


def _measured(real: Tensor, fake: Tensor) -> dict[str, float]:
    both = overlap(real, fake)
    distance = frechet_distance(real, fake)
    return {"precision": both.precision, "recall": both.recall, "frechet_distance": distance}


def _real(compared: Compared, n: int) -> Batch:
    return compared.dataset.train[compared.some(len(compared.dataset.train), "score")[:n]]


@torch.no_grad()
def _probabilities(compared: Compared, gate: Classifier, labels: Tensor) -> Tensor:
    """The probability of each sample's class by the gate, which is neither the extractor nor the scorer."""
    return torch.cat(
        [
            probability_of(gate, compared.samples.x[part], labels[part].long())
            for part in batches(compared.n, "gate", device=gate.device, show=compared.progress)
        ]
    )


def _name(key: str) -> str:
    return "accuracy score" if key == SCORE else NAMES[key][0]


def _picture(curves: dict[str, list[float]]) -> Pixels:
    panels = {_name(key): values for key, values in curves.items()}
    labels = [f"{share:.3g}" for share in SHARES]
    return plot(panels, range(len(SHARES)), x="share of each class that is kept", labels=labels)
