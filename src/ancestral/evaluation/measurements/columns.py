"""What a table's rows and samples have in common, column by column; and a Gaussian to compare with."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from ancestral import media
from ancestral.data import Dataset
from ancestral.evaluation.batches import batches
from ancestral.evaluation.measurement import Examined, Result
from ancestral.figures import Figure
from ancestral.measures import kolmogorov_smirnov
from ancestral.model import Model

_DRAWN = 10_000
"""Samples at most."""
_SHOWN = 2000
"""Points of a panel."""
_NAMED = 20
"""Columns up to which each has a figure of its own."""
_FLOORS = 3
_DISTANCE = "Kolmogorov-Smirnov distance"


def applies(model: Model) -> bool:
    """Of models of tables."""
    return model.spec.domain == "table"


def measure(examined: Examined) -> Result:
    """How far the marginals of samples are from the rows', and the likelihood of a Gaussian."""
    data = examined.data
    assert data is not None
    real = examined.some(_DRAWN).x.cpu()
    drawn = _samples(examined, len(real))
    names = data.columns.names if data.columns else [f"x{i + 1}" for i in range(real.shape[1])]
    gaussian = _gaussian(examined, data)
    sorry = "No Gaussian to compare with: columns follow from others, or training rows are few."
    shown = [data.columns.restored(x[:_SHOWN]) if data.columns else x[:_SHOWN] for x in (real, drawn)]
    return Result(
        figures=[*gaussian, *_marginals(real, drawn, data.train.x, names)],
        left_out=[] if gaussian else [sorry],
        pictures={
            "pairs": lambda: media.comparison(
                examined.model.spec, *shown, names=names, series=("rows", "samples")
            ),
            "marginals": lambda: media.marginals(*shown, names=names, series=("rows", "samples")),
        },
    )


def _samples(examined: Examined, n: int) -> Tensor:
    model = examined.model
    parts = batches(n, "samples", device=model.device, show=examined.progress, dims=model.spec.dims)
    return torch.cat([model.sample(part.stop - part.start).cpu() for part in parts])[:n]


def _marginals(real: Tensor, drawn: Tensor, train: Tensor, names: Sequence[str]) -> list[Figure]:
    distances = kolmogorov_smirnov(real, drawn)
    floors = [
        float(kolmogorov_smirnov(real, train[torch.randperm(len(train))[: len(real)]]).mean())
        for _ in range(_FLOORS)
    ]
    worst = int(distances.argmax())
    mean = Figure(
        id="marginals",
        name=f"{_DISTANCE} of marginals",
        value=float(distances.mean()),
        quantity=f"{_DISTANCE} of marginals",
        better="lower",
        floor=(min(floors), max(floors)),
        note=f"mean of {len(names)} columns, {len(real):,} samples; other rows {sum(floors) / _FLOORS:.3f}; "
        f"largest {distances[worst]:.3f}, of {names[worst]}",
    )
    if len(names) > _NAMED:
        return [mean]
    each = [
        Figure(
            id=f"marginal_{name}",
            name=f"{_DISTANCE} of {name}",
            value=float(distance),
            quantity=f"{_DISTANCE} of {name}",
            better="lower",
        )
        for name, distance in zip(names, distances, strict=True)
    ]
    return [mean, *each]


def _gaussian(examined: Examined, data: Dataset) -> list[Figure]:
    """The negative log-likelihood of the Gaussian of the mean and covariance of training rows."""
    train = data.train.x.double()
    if len(train) < 2:
        return []
    covariance = train.T.cov().reshape(train.shape[1], -1)
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if failed or float((factor.diagonal() / covariance.diagonal().sqrt()).min()) < 1e-5:
        return []
    gaussian = MultivariateNormal(train.mean(0), scale_tril=factor)
    nats = -gaussian.log_prob(examined.examples.x.double()) - data.log_determinant
    return [
        Figure.of_nats(
            "nll_gaussian",
            "negative log-likelihood of a Gaussian",
            nats,
            examined.model.spec,
            quantity="negative log-likelihood of a Gaussian",
            kind="exact",
            note="of the mean and covariance of training rows",
        )
    ]
