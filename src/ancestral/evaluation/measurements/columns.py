"""What a table's rows and samples have in common, column by column."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ancestral import media
from ancestral.batch import Batch
from ancestral.columns import named
from ancestral.evaluation.measurement import Examined, Result
from ancestral.figures import Figure
from ancestral.measures import kolmogorov_smirnov
from ancestral.model import Model
from ancestral.progress import watched

_DRAWN = 10_000
"""Samples at most."""
_SHOWN = 2000
"""Points of a panel."""
_NAMED = 20
"""Columns up to which each has a figure of its own."""
_FLOORS = 3
_PART = 1000
"""Rows drawn at once: what a flow draws one column after another costs as much for few."""
_DISTANCE = "Kolmogorov-Smirnov distance"


def applies(model: Model) -> bool:
    """Of models of tables."""
    return model.spec.domain == "table"


def measure(examined: Examined) -> Result:
    """How far the marginals of samples are from the rows'."""
    data = examined.data
    assert data is not None
    real = examined.some(_DRAWN).x.cpu()
    drawn = _samples(examined, len(real))
    finite = drawn.isfinite().all(1)
    drawn, lost = drawn[finite], int((~finite).sum())
    if not len(drawn):
        return Result(left_out=["No samples to measure columns of: all are beyond all floats."])
    # Rows that are no part of those that are measured, as many.
    train = data.train.x
    others = train if examined.split in ("validation", "test") and len(train) >= len(real) else train[:0]
    names = named(data.columns.names if data.columns else (), real.shape[1])
    few = (Batch(x).some(_SHOWN).x for x in (real, drawn))
    shown = [data.columns.restored(x) if data.columns else x for x in few]
    return Result(
        figures=_marginals(real, drawn, others, names),
        left_out=[f"{lost:,} samples beyond all floats are left out of the columns."] if lost else [],
        pictures={
            "pairs": lambda: media.comparison(
                examined.model.spec, *shown, names=names, series=("rows", "samples")
            ),
            "marginals": lambda: media.marginals(*shown, names=names, series=("rows", "samples")),
        },
    )


def _samples(examined: Examined, n: int) -> Tensor:
    model = examined.model
    firsts = watched(range(0, n, _PART), "samples", show=examined.progress)
    return torch.cat([model.sample(min(_PART, n - first)).cpu() for first in firsts])


def _marginals(real: Tensor, drawn: Tensor, others: Tensor, names: Sequence[str]) -> list[Figure]:
    distances = kolmogorov_smirnov(real, drawn)
    floors = [
        float(kolmogorov_smirnov(real, others[torch.randperm(len(others))[: len(real)]]).mean())
        for _ in range(_FLOORS if len(others) else 0)
    ]
    floor = f"other rows {sum(floors) / len(floors):.3f}; " if floors else ""
    worst = int(distances.argmax())
    mean = Figure(
        id="marginals",
        name=f"{_DISTANCE} of marginals",
        value=float(distances.mean()),
        quantity=f"{_DISTANCE} of marginals",
        better="lower",
        floor=(min(floors), max(floors)) if floors else None,
        note=f"mean of {len(names)} columns, {len(drawn):,} samples; {floor}largest {distances[worst]:.3f}, "
        f"of {names[worst]}",
    )
    if len(names) > _NAMED:
        return [mean]
    each = [
        Figure(
            id=f"marginal_{i}",
            name=f"{_DISTANCE} of {name}",
            value=float(distance),
            quantity=f"{_DISTANCE} of {name}",
            better="lower",
        )
        for i, (name, distance) in enumerate(zip(names, distances, strict=True), 1)
    ]
    return [mean, *each]
