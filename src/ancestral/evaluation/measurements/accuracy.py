"""How often a classifier finds the class."""

import torch

from ancestral.batch import Batch
from ancestral.capabilities import Classifies
from ancestral.evaluation.measurement import Examined, Result
from ancestral.figures import Figure
from ancestral.measures import bootstrap
from ancestral.model import Model


def applies(model: Model) -> bool:
    """Of classifiers, and of models that have learned classes beside."""
    return isinstance(model, Classifies) and model.classifies


def measure(examined: Examined) -> Result:
    """The share of examples whose class is the likeliest."""
    model = examined.model
    if examined.examples.labels is None:
        return Result()

    def hit(batch: Batch) -> torch.Tensor:
        assert batch.labels is not None
        assert isinstance(model, Classifies)
        return model.hits(batch.x, batch.labels)

    hits = examined.each("accuracy", hit)
    interval = bootstrap(hits) if len(hits) > 1 else None
    return Result(
        figures=[
            Figure(
                id="accuracy",
                name="accuracy",
                value=float(hits.mean()),
                quantity="accuracy",
                better="higher",
                note=f"{int(hits.sum()):,} of {len(hits):,}",
                interval=(interval.low, interval.high) if interval else None,
            )
        ]
    )
