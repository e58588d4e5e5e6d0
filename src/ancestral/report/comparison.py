"""Figures of several runs side by side, refused where they were not measured in the same way."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ancestral.errors import UserError, shown
from ancestral.figures import Evaluation, Figure
from ancestral.manifest import Manifest
from ancestral.records import read_record
from ancestral.report.notation import with_error, with_interval
from ancestral.taxonomy import rows

_SIGNS = {("bound", "lower"): "≤ ", ("bound", "higher"): "≥ "}


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """One run: what it is called, what it is, and its figures."""

    name: str
    path: Path
    manifest: Manifest
    evaluation: Evaluation

    @property
    def title(self) -> str:
        """What its model is called."""
        model = self.manifest.model
        return next((row.title for row in rows() if row.name == model), model)

    @property
    def figures(self) -> dict[str, Figure]:
        """By their ids."""
        return {figure.id: figure for figure in self.evaluation.figures}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs whose figures can be compared; ``str`` is their table."""

    runs: Sequence[Evaluated]

    @classmethod
    def of(cls, runs: Sequence[Path]) -> "Comparison":
        """The runs in these directories.

        Raises:
            UserError: one is no run or is not evaluated yet, they were evaluated on other data, or a figure
                of several was measured differently.
        """
        runs = list({path.resolve(): path for path in runs}.values())
        if not runs:
            raise UserError("expected run directories, got none", "give one or more")
        several = Counter(path.resolve().name for path in runs)
        compared = [
            _read(path, str(path) if several[path.resolve().name] > 1 else path.resolve().name)
            for path in runs
        ]
        for other in compared[1:]:
            _check(compared[0], other)
        for id in _shared(compared):
            have = [run for run in compared if id in run.figures]
            for other in have[1:]:
                _check_figure(id, have[0], other)
        return cls(runs=compared)

    @property
    def rows(self) -> dict[str, dict[str, Figure]]:
        """The figures that at least two runs have, by id and by the name of the run; all of a single run.

        Negative log-likelihoods of several ids, exact ones and bounds, come first, by their quantity.
        """
        shared = {
            id: {run.name: run.figures[id] for run in self.runs if id in run.figures}
            for id in _shared(self.runs)
        }
        return self._likelihoods() | shared

    def _likelihoods(self) -> dict[str, dict[str, Figure]]:
        """The best of each quantity that runs have under several ids, as an exact one and a bound."""
        found: dict[tuple[str, str], dict[str, Figure]] = {}
        for run in self.runs:
            for figure in run.figures.values():
                if figure.kind != "measure":
                    best = found.setdefault((figure.quantity, figure.unit), {})
                    best[run.name] = min(best.get(run.name, figure), figure, key=lambda f: f.value)
        return {
            quantity: {name: replace(figure, id=quantity, name=quantity) for name, figure in best.items()}
            for (quantity, _), best in found.items()
            if len({figure.id for figure in best.values()}) > 1
        }

    def table(self) -> Table:
        """A row for each figure, a column for each run; the best of a row has a star."""
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="")
        table.add_column("figure", overflow="fold")
        for run in self.runs:
            table.add_column(Text(f"{run.name}\n{run.title}"), overflow="fold")
        table.add_column("unit", overflow="fold")
        for figures in self.rows.values():
            first = next(iter(figures.values()))
            stars = _best(figures)
            cells = [
                f"{_written(figures[run.name])}{' *' if run.name in stars else ''}"
                if run.name in figures
                else ""
                for run in self.runs
            ]
            table.add_row(*map(Text, [first.name, *cells, first.unit]))
        return table

    def __str__(self) -> str:
        return self.text(10_000)

    def text(self, width: int) -> str:
        """The table, no wider than ``width``, under what the figures are of."""
        console = Console(width=width, color_system=None)
        with console.capture() as capture:
            console.print(self.table())
        of = self.runs[0].evaluation
        better = {figure.better for figures in self.rows.values() for figure in figures.values()}
        kinds = {figure.kind for figures in self.rows.values() for figure in figures.values()}
        data = of.data or self.runs[0].manifest.data.source
        lines = [f"{data}, {of.split} split, {of.examples:,} examples", ""]
        lines += [line.rstrip() for line in capture.get().splitlines() if line.strip()]
        if not self.rows:
            lines = [*lines[:1], "", "No two of these runs have a figure in common."]
        if len(self.runs) > 1 and better - {None}:
            lines += [
                "",
                "* the best of the row, as far as its figures tell"
                if "bound" in kinds
                else "* the best of the row",
            ]
        return "\n".join(lines + self._draws())

    def _draws(self) -> list[str]:
        """How each run drew the samples that were measured, where they did not draw alike."""
        found = {
            run.name: {**figure.provenance.sampling}
            for run in self.runs
            for figure in reversed(run.evaluation.figures)
            if figure.provenance is not None and figure.id in self.rows
        }
        if all(sampling == next(iter(found.values())) for sampling in found.values()):
            return []
        said = {
            name: ", ".join(f"{key} {value}" for key, value in sampling.items()) or "nothing set"
            for name, sampling in found.items()
        }
        return ["", *(f"samples of {name} were drawn with {how}" for name, how in said.items())]


def _read(path: Path, name: str) -> Evaluated:
    if not (path / "run.json").is_file():
        problem = f"expected a run directory, got {path} without run.json"
        raise UserError(problem, "give the --out of an `ancestral train`")
    if not (path / "evaluation.json").is_file():
        problem = f"expected figures of {path}, got no evaluation.json"
        raise UserError(problem, f"make it: ancestral evaluate {shlex.quote(str(path))}")
    return Evaluated(
        name=name,
        path=path,
        manifest=read_record(Manifest, path / "run.json"),
        evaluation=Evaluation.read(path / "evaluation.json"),
    )


def _check(first: Evaluated, other: Evaluated) -> None:
    """Raise UserError unless both were evaluated on the same examples."""

    def traits(run: Evaluated) -> Mapping[str, object]:
        return {
            "data": run.evaluation.data,
            "split": run.evaluation.split,
            "content of the data": run.manifest.data.fingerprint,
            "shape of an example": run.manifest.spec.shape,
            "levels of a value": run.manifest.spec.levels,
            "number of examples": run.evaluation.examples,
        }

    there = traits(other)
    for what, value in traits(first).items():
        if value != there[what]:
            got = f"{shown(value)} in {first.name} and {shown(there[what])} in {other.name}"
            raise UserError(f"expected runs of one {what}, got {got}", "compare runs on the same data")


def _check_figure(id: str, first: Evaluated, other: Evaluated) -> None:
    """Raise UserError, naming the figure and what differs, unless both were measured in the same way."""
    try:
        first.figures[id].check_comparable(other.figures[id])
    except UserError as error:
        where = f"for {first.figures[id].name} of {first.name} and {other.name}"
        raise UserError(f"{error.problem} {where}", error.remedy) from None


def _shared(runs: Sequence[Evaluated]) -> list[str]:
    """The ids that at least two runs have, or the only one has, in their order there."""
    counts = Counter(id for run in runs for id in run.figures)
    return [id for id, count in counts.items() if count >= min(2, len(runs))]


def _best(figures: Mapping[str, Figure]) -> set[str]:
    """The runs with the best value; none where it depends, or where there is nothing to choose from."""
    directions = {figure.better for figure in figures.values()}
    values = {run: figure.value for run, figure in figures.items() if figure.value == figure.value}
    if directions not in ({"lower"}, {"higher"}) or len(values) < 2:
        return set()
    best = min(values.values()) if directions == {"lower"} else max(values.values())
    return {run for run, value in values.items() if value == best}


def _written(figure: Figure) -> str:
    sign = _SIGNS.get((figure.kind, figure.better or ""), "≈ " if figure.kind == "estimate" else "")
    if figure.interval is not None:
        value, ends = with_interval(figure.value, figure.interval)
        text = f"{value} [{ends[0]}, {ends[1]}]" if ends else value
    else:
        value, error = with_error(figure.value, figure.standard_error)
        text = f"{value} ± {error}" if error else value
    return sign + text.replace("−", "-")
