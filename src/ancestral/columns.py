"""The columns of a table: what they are called, and the units that a model sees them in."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ancestral.configuration import Configuration, Range
from ancestral.errors import UserError

_LARGEST = torch.finfo(torch.float32).max


def named(names: Sequence[str], count: int) -> tuple[str, ...]:
    """The first ``count`` names, and x1, x2, … by their places where there are none.

    >>> named(("price",), 3)
    ('price', 'x2', 'x3')
    """
    return (*names[:count], *(f"x{i + 1}" for i in range(len(names), count)))


@dataclass(frozen=True, kw_only=True)
class Columns(Configuration):
    """A row of a file is, for a model, (row - means) / scales.

    >>> columns = Columns(names=("price", "size"), means=(100.0, 2.0), scales=(50.0, 0.5))
    >>> x = columns.standardized(torch.tensor([[150.0, 1.0]]))
    >>> x.tolist(), columns.restored(x).tolist()
    ([[1.0, -2.0]], [[150.0, 1.0]])
    """

    open = True
    names: tuple[str, ...]
    means: Annotated[tuple[float, ...], Range(above=-math.inf, below=math.inf)] = ()
    """What is taken from each column; nothing if rows stay as they are."""
    scales: Annotated[tuple[float, ...], Range(above=0, below=math.inf)] = ()
    """What each column is then divided by."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.means) != len(self.scales) or len(self.scales) not in {0, len(self.names)}:
            got = f"got {len(self.means)} means, {len(self.scales)} scales"
            problem = f"expected a mean and a scale for each of {len(self.names)} columns, {got}"
            raise UserError(problem, "give all or none")

    @property
    def log_determinant(self) -> float:
        """What this adds to a log density, in nats: log p(row of the file) = log p(x) + this."""
        return -sum(map(math.log, self.scales))

    def standardized(self, rows: Tensor) -> Tensor:
        """Rows of a file ``(N, D)`` as a model sees them, in 32 bits, computed in 64 on the CPU.

        What is beyond the range of 32 bits is brought to its end.
        """
        if not self.scales:
            return rows.float()
        means, scales = (torch.tensor(v, dtype=torch.float64) for v in (self.means, self.scales))
        x = (rows.cpu().double() - means) / scales
        return x.clamp(-_LARGEST, _LARGEST).float().to(rows.device)

    def restored(self, x: Tensor) -> Tensor:
        """What a model sees ``(N, D)`` as rows of a file, in 32 bits, computed in 64 on the CPU."""
        if not self.scales:
            return x.float()
        means, scales = (torch.tensor(v, dtype=torch.float64) for v in (self.means, self.scales))
        return (x.cpu().double() * scales + means).float().to(x.device)

    def check_same(self, other: "Columns") -> None:
        """Raise UserError unless the columns of another table have these names; those of arrays have none."""
        mine, its = self.names, other.names
        if mine != its and (len(mine) != len(its) or named((), len(mine)) not in (mine, its)):
            problem = f"expected the columns {', '.join(mine)}, got {', '.join(its)}"
            raise UserError(problem, "give the columns that the model was trained on, in their order")
