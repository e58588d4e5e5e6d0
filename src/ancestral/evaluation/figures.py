"""A figure: a number with its unit, and whether it is exact, a bound or a measurement."""

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from torch import Tensor

from ancestral import units


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number of an evaluation."""

    name: str
    value: float
    unit: str
    kind: Literal["exact", "bound", "estimate", "measure"]
    """exact or bound on the negative log-likelihood, an estimate of it, or a measure of something else."""
    note: str = ""
    standard_error: float | None = None
    """Of the mean over the examples."""

    @classmethod
    def bits_per_dim(
        cls,
        name: str,
        nats: Tensor,
        dims: int,
        *,
        kind: Literal["exact", "bound", "estimate", "measure"],
        note: str = "",
    ) -> "Figure":
        """The mean of negative log-likelihoods ``(N,)`` nats, in bits/dim of ``dims`` values."""
        values = units.bits_per_dim(nats.double(), dims)
        error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else None
        return cls(
            name=name, value=float(values.mean()), unit="bits/dim", kind=kind, note=note, standard_error=error
        )


@dataclass(frozen=True, kw_only=True)
class Codebook:
    """How the codes of one codebook are used."""

    size: int
    used: int
    perplexity: float
    """Exponential of the entropy of the use: between 1 and ``size``."""
    usage: list[int]
    """Times that each code was used."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The figures of a model on a split of data."""

    model: str
    data: str
    split: str
    examples: int
    figures: list[Figure]
    codebooks: list[Codebook] = field(default_factory=list)
    seconds: float = 0.0
    command: str = ""

    def __getitem__(self, name: str) -> float:
        """The value of a figure by its name. Raises KeyError, with the names that there are."""
        values = {figure.name: figure.value for figure in self.figures}
        if name not in values:
            raise KeyError(f"no figure {name!r}, but {', '.join(values)}")
        return values[name]

    def to_json(self) -> dict[str, Any]:
        """For ``evaluation.json``."""
        return json.loads(json.dumps(asdict(self)))

    def __str__(self) -> str:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="")
        table.add_column("figure", no_wrap=True)
        table.add_column("value", justify="right", no_wrap=True)
        table.add_column("unit", no_wrap=True)
        table.add_column("kind", no_wrap=True)
        table.add_column("note", overflow="fold")
        for f in self.figures:
            value = f"{f.value:.4g}" if abs(f.value) >= 100 else f"{f.value:.4f}"
            error = f" ± {f.standard_error:.4f}" if f.standard_error is not None else ""
            table.add_row(f.name, value + error, f.unit, f.kind, f.note)
        console = Console(width=100, color_system=None)
        with console.capture() as capture:
            console.print(table)
        lines = [line.rstrip() for line in capture.get().splitlines() if line.strip()]
        return "\n".join(
            [f"{self.model} on {self.data}, {self.split} split, {self.examples:,} examples", "", *lines]
        )
