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
    """In bits/dim, or nats of continuous data."""
    k = examined.importance_samples
    samples = [1, k] if k > 1 else [1]
    return Result(figures=[_figure(examined, c, n) for c in examined.conditions for n in samples])


def _figure(examined: Examined, condition: Condition, k: int) -> Figure:
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

    return Figure.of_nats(
        id + condition.suffix,
        name + condition.words,
        examined.each(name, cost),
        model.spec,
        quantity=f"negative log-likelihood{condition.words}",
        kind=model.likelihood,
        note=", ".join(filter(None, (note, condition.note))),
    )
