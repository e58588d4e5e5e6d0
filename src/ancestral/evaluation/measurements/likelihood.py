"""The negative log-likelihood: exact, or a bound on it."""

from torch import Tensor

from ancestral.batch import Batch
from ancestral.capabilities import Tokenizer
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
    return Result(figures=[f for c in examined.conditions for n in samples for f in _figures(examined, c, n)])


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
        )
        for (suffix, words), nats in figures.items()
    ]
