"""The negative log-likelihood: exact, or a bound on it."""

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from ancestral.batch import Batch
from ancestral.capabilities import Tokenizer
from ancestral.data import Dataset
from ancestral.evaluation.measurement import Condition, Examined, Result
from ancestral.figures import Figure
from ancestral.model import Model


def applies(model: Model) -> bool:
    """Of models with a likelihood; a tokenizer's is measured in its parts, by ``codes``."""
    return model.likelihood != "none" and not isinstance(model, Tokenizer)


def measure(examined: Examined) -> Result:
    """In bits/dim; of a table in nats of the rows as the file has them, and as they are when standardized."""
    k = examined.importance_samples
    samples = [1, k] if k > 1 else [1]
    figures = [f for c in examined.conditions for n in samples for f in _figures(examined, c, n)]
    spec = examined.model.spec
    if examined.data is None or spec.domain != "table" or spec.levels is not None:
        return Result(figures=figures)
    gaussian = _gaussian(examined, examined.data)
    sorry = "No Gaussian to compare with: columns follow from others, or training rows are few."
    return Result(figures=[*figures, *gaussian], left_out=[] if gaussian else [sorry])


def _figures(examined: Examined, condition: Condition, k: int) -> list[Figure]:
    model = examined.model
    assert model.likelihood != "none"
    if model.likelihood == "exact":
        id, name, note = "nll", "NLL" if condition.labeled else "negative log-likelihood", ""
    elif k == 1:
        id, name, note = "nelbo", "negative ELBO", "one sample each" if model.importance_weighted else ""
    else:
        id, name, note = "nelbo_importance_weighted", f"importance-weighted, k={k}", ""

    def cost(batch: Batch) -> Tensor:
        return -model.log_likelihood(condition(batch), k)

    costs = examined.each(name, cost)
    figures = {("", ""): costs - examined.log_determinant}
    if examined.log_determinant:
        figures["_standardized", " of standardized rows"] = costs
    return [
        Figure.of_nats(
            f"{id}{suffix}{condition.suffix}",
            f"{name}{words}{condition.words}",
            nats,
            model.spec,
            quantity=f"negative log-likelihood{words}{condition.words}",
            kind=model.likelihood,
            note=", ".join(filter(None, (note, condition.note))),
            counts=examined.counts,
        )
        for (suffix, words), nats in figures.items()
    ]


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
    nats = -gaussian.log_prob(examined.examples[:].x.double()) - data.log_determinant
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
