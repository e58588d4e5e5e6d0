"""An evaluation and its figures: numbers with their units, and whether they are exact, bounds or measured."""

import dataclasses
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ancestral import units
from ancestral.configuration import Configuration, Count, Natural, NonNegative, to_json
from ancestral.errors import UserError, shown
from ancestral.records import read_record

if TYPE_CHECKING:  # the report reads evaluations, and needs no torch
    from torch import Tensor

    from ancestral.spec import Spec

Kind = Literal["exact", "bound", "estimate", "measure"]


@dataclass(frozen=True, kw_only=True)
class Provenance(Configuration):
    """What a measure of samples was taken with. Only measures taken with the same can be compared."""

    open = True
    features: str
    """The network whose features it sees, by name; what else decides it where it sees none."""
    weights: str
    """SHA-256 of that network's weights."""
    accuracy: float | None = None
    """Share of the reference that the network puts into the right class; None if it knows none of these."""
    data: str
    """The source of the real examples."""
    fingerprint: str
    """SHA-256 of its content."""
    split: str
    """The real examples of which split are the reference."""
    n: Count
    """Samples, and as many real examples."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """How the samples were drawn: what is compared, so that it may differ."""
    model: str = ""
    """SHA-256 of the weights that drew them; nothing if these are not at hand."""
    seeds: Sequence[int] = ()
    """Of the samples, and of trainings that the measure takes."""

    def __str__(self) -> str:
        """In a line.

        >>> print(Provenance(features="a", weights="ab12", data="d", fingerprint="", split="test", n=9))
        9 samples against 9 of d, test split, by: a (ab12)
        """
        drawn = ", ".join(f"{name} {value}" for name, value in self.sampling.items())
        by = self.features + (f" ({self.weights[:8]})" if self.weights else "")
        by += f", accuracy {self.accuracy:.3f}" if self.accuracy is not None else ""
        drawn = f" ({drawn})" if drawn else ""
        return f"{self.n:,} samples{drawn} against {self.n:,} of {self.data}, {self.split} split, by: {by}"

    def check_same(self, other: "Provenance | None") -> None:
        """Raise UserError, naming what differs, unless measures of both can be compared."""
        deciding = ("features", "weights", "fingerprint", "split", "n")
        there = {} if other is None else to_json(other)
        here = to_json(self)
        if differing := [name for name in deciding if here[name] != there.get(name)]:
            name = differing[0]
            what = {"fingerprint": "content of the data", "weights": "weights of the features"}.get(
                name, name
            )
            got = f"{shown(here[name])} and {shown(there.get(name))}"
            problem = f"expected measures of the same {what}, got {got}"
            raise UserError(problem, "measure both anew in the same way")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number of an evaluation.

    >>> Figure(id="psnr", name="reconstruction PSNR", value=23.9, quantity="PSNR", unit="dB").kind
    'measure'
    """

    open: ClassVar[bool] = True
    id: str
    """What programs call it; it never changes."""
    name: str
    """What people read."""
    value: float
    quantity: str
    """What it is a number of; figures of one quantity and unit can be compared."""
    unit: str = ""
    kind: Kind = "measure"
    """Exact, a bound on or an estimate of a negative log-likelihood; or a measure of something else."""
    better: Literal["lower", "higher"] | None = None
    """Which of two values is the better one; None where that depends."""
    note: str = ""
    standard_error: float | None = None
    """Of the mean over the examples."""
    interval: tuple[float, float] | None = None
    """In which the figure lies with a probability of 95 %."""
    floor: tuple[float, float] | None = None
    """What real examples that are no part of the reference get at the same n: least and most of several
    draws. No model can be expected to do better."""
    references: Mapping[str, float] = field(default_factory=dict)
    """What known faults get, by their names: they teach what the number means."""
    provenance: Provenance | None = None
    """Of a measure of samples."""

    def check_comparable(self, other: "Figure") -> None:
        """Raise UserError unless the two are of the same quantity, taken in the same way."""
        for name in ("quantity", "unit"):
            mine, its = getattr(self, name), getattr(other, name)
            if mine != its:
                problem = f"expected figures of one {name}, got {mine or 'none'} and {its or 'none'}"
                raise UserError(problem, "compare others")
        if self.provenance is not None:
            self.provenance.check_same(other.provenance)
        elif other.provenance is not None:
            other.provenance.check_same(None)

    @classmethod
    def of_nats(
        cls, id: str, name: str, nats: "Tensor", spec: "Spec", *, quantity: str, kind: Kind, note: str = "",
        counts: "Tensor | None" = None,
    ) -> "Figure":  # fmt: skip
        """The mean of costs ``(N,)`` nats of examples, in bits/dim; of continuous data in nats.

        With ``counts`` ``(N,)``, how many values each of some sounds has, it is their sum over the values of
        all, in bits/sample: a long sound weighs more.

        >>> import torch
        >>> from ancestral.spec import Spec
        >>> costs = torch.tensor([3.0, 5.0]) * math.log(2)
        >>> spec = Spec(shape=(1, 2, 2))
        >>> figure = Figure.of_nats("nll", "NLL", costs, spec, quantity="NLL", kind="exact")
        >>> round(figure.value, 4), figure.unit, round(figure.standard_error, 4), figure.better
        (1.0, 'bits/dim', 0.25, 'lower')
        """
        values = nats.double() if spec.levels is None else units.bits_per_dim(nats.double(), spec.dims)
        if counts is not None:  # the mean of these values is the ratio, and their spread that of a ratio
            costs, mean = units.bits(nats.double()), counts.double().mean()
            ratio = costs.mean() / mean
            values = ratio + (costs - ratio * counts.double()) / mean
        error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else None
        return cls(
            id=id,
            name=name,
            value=float(values.mean()),
            quantity=quantity,
            unit="nats" if spec.levels is None else "bits/dim" if counts is None else "bits/sample",
            kind=kind,
            better="lower",
            note=note,
            standard_error=error,
        )


@dataclass(frozen=True, kw_only=True)
class Codebook(Configuration):
    """How the codes of one codebook are used."""

    open = True
    name: str = ""
    """Of several: whose it is, a level's."""
    size: Count
    used: Natural
    perplexity: float
    """Exponential of the entropy of the use: between 1 and ``size``."""
    usage: Sequence[Natural]
    """Times that each code was used."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.usage) != self.size:
            problem = f"expected the use of each of {self.size} codes, got {len(self.usage)}"
            raise UserError(problem, "evaluate anew")


@dataclass(frozen=True, kw_only=True)
class Evaluation(Configuration):
    """The figures of a model on a split of data.

    >>> nll = Figure(
    ...     id="nll", name="negative log-likelihood", value=2.868, quantity="NLL", unit="bits/dim"
    ... )
    >>> result = Evaluation(model="PixelCNN", data="digits", split="test", examples=180, figures=[nll])
    >>> result["nll"], result["negative log-likelihood"]
    (2.868, 2.868)
    >>> print(result)
    PixelCNN on digits, test split, 180 examples
    <BLANKLINE>
    figure                    value  unit      kind     note
    negative log-likelihood  2.8680  bits/dim  measure
    """

    open = True
    model: str
    data: str
    split: str
    examples: Natural
    figures: Sequence[Figure]
    codebooks: Sequence[Codebook] = ()
    seconds: NonNegative = 0.0
    command: str = ""
    left_out: Sequence[str] = ()
    """What could not be measured, of the codes or of the data, and why: a sentence each."""

    def __getitem__(self, name: str) -> float:
        """The value of a figure by its id or its name. Raises KeyError, with the ids that there are."""
        for figure in self.figures:
            if name in (figure.id, figure.name):
                return figure.value
        raise KeyError(f"no figure {name!r}, but {', '.join(figure.id for figure in self.figures)}")

    def beside(self, there: "Evaluation") -> "Evaluation":
        """This one, and the figures of an earlier one of the same examples that were not measured now.

        Of another model, other data or another split nothing is taken over, nor are samples that other
        weights drew.
        """
        about = ("model", "data", "split", "examples")
        if any(getattr(self, name) != getattr(there, name) for name in about):
            return self
        new = {figure.id for figure in self.figures}
        drew = {figure.provenance.model for figure in self.figures if figure.provenance}
        kept = [
            figure
            for figure in there.figures
            if figure.id not in new
            and (not drew or figure.provenance is None or figure.provenance.model in drew)
        ]
        codes = self if self.codebooks else there
        return dataclasses.replace(
            self, figures=[*kept, *self.figures], codebooks=codes.codebooks, left_out=codes.left_out
        )

    def to_json(self) -> dict[str, Any]:
        """For ``evaluation.json``."""
        return to_json(self)

    @classmethod
    def read(cls, path: Path) -> "Evaluation":
        """What ``evaluation.json`` holds; what it leaves out is empty. Raises like ``read_record``."""
        nothing = cls(model="", data="", split="", examples=0, figures=())
        return read_record(cls, path, nothing)

    def __str__(self) -> str:
        lines = [f"{self.model} on {self.data}, {self.split} split, {self.examples:,} examples"]
        plain = [f for f in self.figures if f.interval is None and f.provenance is None]
        rows: list[tuple[str, ...]] = [
            (f.name, _number(f.value) + (f" ± {f.standard_error:.4f}" if f.standard_error else ""), f.unit,
             f.kind, f.note)
            for f in plain
        ]  # fmt: skip
        lines += ["", *_table(("figure", "value", "unit", "kind", "note"), rows)] if rows else []
        if measured := [f for f in self.figures if f not in plain]:
            rows = [(f.name, _number(f.value), _ends(f.interval), _ends(f.floor), f.note) for f in measured]
            lines += ["", *_table(("measure", "value", "95 %", "real data", "note"), rows)]
            taken = dict.fromkeys(str(f.provenance) for f in measured if f.provenance)
            lines += ["", *taken] if taken else []
        lines += ["", *(textwrap.fill(sentence, 80) for sentence in self.left_out)] if self.left_out else []
        return "\n".join(lines)


def _number(value: float) -> str:
    if 0 < abs(value) < 1e-3:
        return f"{value:.2g}"
    return f"{value:.4g}" if abs(value) >= 100 else f"{value:.4f}"


def _ends(ends: tuple[float, float] | None) -> str:
    return f"{_number(ends[0])} to {_number(ends[1])}" if ends is not None else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, of 80 characters if the last column, which alone wraps, can give way."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    width = max(80, sum(widths[:-1]) + 2 * (len(widths) - 1) + min(widths[-1], 24))
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="")
    for i, name in enumerate(head):
        last = i == len(head) - 1
        table.add_column(
            name,
            min_width=max(len(row[i]) for row in rows) if name == "value" else None,
            justify="right" if name == "value" else "left",
            no_wrap=not last,
            overflow="fold" if last else "ellipsis",
        )
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines() if line.strip()]
