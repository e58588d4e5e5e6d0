"""What the page of a run says, gathered from the files of its directory alone."""

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ancestral.errors import UserError, check_type
from ancestral.figures import Codebook, Evaluation, Provenance
from ancestral.figures import Figure as Measured
from ancestral.files import read_json, replacing
from ancestral.manifest import Length, Manifest
from ancestral.records import as_record
from ancestral.report import metrics, notation
from ancestral.report.curves import line_chart, usage_chart
from ancestral.report.metrics import Term
from ancestral.report.pictures import Picture, converted, drawn, latest, over_time, picture, progression
from ancestral.report.strips import NARROW, WIDE, axis_of, drawable, standing, strip
from ancestral.taxonomy import FAMILIES, rows

if TYPE_CHECKING:
    from ancestral.runs import Run

KINDS = {
    "exact": "the model’s own likelihood of these data, computed in full",
    "bound": "what can be guaranteed: the model’s true figure is this good or better",
    "estimate": "computed from random draws: the true figure may lie on either side",
    "measure": "a measurement of something other than likelihood",
}
"""What each kind of figure means."""

_CURVE = "kept_"
"""How the ids of figures begin that are points of a curve, which a picture shows."""

_SIGNS = {"exact": "=", "estimate": "≈"}
_BOUNDS = {"lower": "≤", "higher": "≥"}
"""The sign before a bound, by which of two values is the better one."""

_DIRECTIONS = {
    "lower": "Lower is better (←).",
    "higher": "Higher is better (→).",
    None: "Neither more nor less is better.",
}
"""Which of two values is the better one, and where it lies."""

_LIKELIHOOD = {
    "exact": "Its likelihood is exact.",
    "bound": "Its likelihood figures are bounds.",
    "none": "It has no likelihood.",
}


@dataclass(frozen=True, kw_only=True)
class Lede:
    """What the model is, from its row of the taxonomy."""

    title: str
    family: str
    formula: str
    learning: str
    likelihood: str
    paper: str
    link: str


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row of the table of figures."""

    name: str
    sign: str
    value: str
    error: str
    interval: str
    unit: str
    kind: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Strip:
    """A measure of samples, drawn beside real data and known faults."""

    name: str
    value: str
    interval: str
    unit: str
    note: str
    better: str
    """Which way is better, in words."""
    standing: str
    differing: str
    """How it was taken, where that differs from most of the others."""
    drawings: list[Markup]
    """For each width; the style sheet shows one."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A drawing with its title and what it says in words."""

    title: str
    unit: str
    svg: Markup
    summary: str


@dataclass(frozen=True, kw_only=True)
class Stage:
    """How far a stage has come, and its charts."""

    name: str
    steps: int | None
    reached: int
    behind: bool
    """Whether steps are left: more than those that a finished stage may leave unlogged."""
    charts: list[Chart]
    sheets: list[Picture]
    sheets_in_all: int


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of a table of settings: a nested table's name (value None) or a setting."""

    depth: int
    name: str
    value: str | None


def write_report(run: "Run | Path | str") -> Path:
    """Write ``report.html`` into a run's directory from the files there, finished or not; its path.

    The page is one file: its pictures and curves are inside it, and it asks nothing of a network.

    Args:
        run: a run, or its directory.

    Raises:
        UserError: the directory is that of no run, or one of its files is damaged.
    """
    path: Any = getattr(run, "path", run)
    check_type(path, str | Path, "a run or its directory", "give the folder of --out")
    run = Path(path)
    if not (run / "run.json").is_file():
        raise UserError(
            f"expected a run directory, got {run} without run.json",
            f"train a model with --out {shlex.quote(str(run))}",
        )
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(
        (resources.files("ancestral.report") / "report.html.jinja").read_text(encoding="utf-8")
    )
    page = run / "report.html"
    text = template.render(_context(run))
    with replacing(page) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")  # JSON may hold half a character
    return page


def _context(run: Path) -> dict[str, Any]:
    content = read_json(run / "run.json")
    about = as_record(Manifest, content, run / "run.json")
    has_figures = (run / "evaluation.json").is_file()
    evaluation = Evaluation.read(run / "evaluation.json") if has_figures else None
    lines = metrics.read_lines(run / "metrics.jsonl")
    stages = _stages(run, about.stages, lines)
    order = [stage.name for stage in stages]
    figures = [_figure(figure) for figure in evaluation.figures] if evaluation else []
    strips, taken = _strips(evaluation.figures) if evaluation else ([], "")
    shown = vars(about.data).keys()
    return {
        "run": shlex.quote(str(run)),
        "name": run.resolve().name,
        "about": about,
        "lede": _lede(about.model),
        "facts": _facts(about, stages, lines),
        "behind": [stage for stage in stages if stage.behind and (lines or not evaluation)],
        "figures": figures,
        "kinds": {kind: meaning for kind, meaning in KINDS.items() if any(f.kind == kind for f in figures)},
        "strips": strips,
        "taken": taken,
        "nearest": picture(run / "samples" / "nearest.png"),
        "pairs": picture(run / "samples" / "pairs.png"),
        "marginals": picture(run / "samples" / "marginals.png"),
        "rejection": picture(run / "samples" / "rejection.png"),
        "evaluation": evaluation,
        "evaluation_time": notation.duration(evaluation.seconds) if evaluation and evaluation.seconds else "",
        "raw_bits": _raw_bits(about.spec.levels, figures),
        "samples": drawn(run / "samples") or latest(run / "samples", "step", order),
        "reconstructions": picture(run / "samples" / "reconstructions.png", heard=True)
        or latest(run / "samples", "reconstructions", order),
        "conversions": converted(run / "samples"),
        "levels": picture(run / "samples" / "levels.png"),
        "level_rows": [
            figure.name.removeprefix("MSE of ") for figure in figures if figure.name.startswith("MSE of ")
        ],
        "latent": picture(run / "samples" / "latent.png"),
        "interpolations": picture(run / "samples" / "interpolations.png"),
        "by_class": picture(run / "samples" / "by-class.png"),
        "between_classes": picture(run / "samples" / "between-classes.png"),
        "truncations": picture(run / "samples" / "truncations.png"),
        "styles": picture(run / "samples" / "styles.png"),
        "noise": picture(run / "samples" / "noise.png"),
        "classes": picture(run / "samples" / "classes.png"),
        "codebooks": _codebooks(evaluation.codebooks) if evaluation else [],
        "stages": stages,
        "config": list(_entries(about.config)),
        "optimization": _side_by_side(content.get("stages", {})),
        "options": list(
            _entries({key: content[key] for key in ("options", "preparation") if content.get(key)})
        ),
        "source": _short(about.data.source),
        "data_rest": list(_entries({k: v for k, v in content.get("data", {}).items() if k not in shown})),
    }


def _lede(model: str) -> Lede:
    row = next((row for row in rows() if row.name == model), None)
    if row is None:  # somebody's own model
        return Lede(title=model, family="", formula="", learning="", likelihood="", paper="", link="")
    family, _, formula = FAMILIES[row.representation].partition(": ")
    paper, _, link = row.paper.rpartition(", ")
    return Lede(
        title=row.title, family=family[:1].upper() + family[1:], formula=formula, learning=row.learning,
        likelihood=_LIKELIHOOD[row.likelihood], paper=paper, link=link,
    )  # fmt: skip


def _short(source: str) -> str:
    """A data set's name as it is; of a path the last folder."""
    return PurePath(source).name or source if source.startswith(("/", ".", "~")) or "\\" in source else source


def _facts(
    about: Manifest, stages: Sequence[Stage], lines: list[metrics.Entry]
) -> list[tuple[str, str, str]]:
    """The run in a few words: (what, value, remark)."""
    facts = []
    if about.spec.shape:
        levels = f"{about.spec.levels:,} levels" if about.spec.levels else "continuous"
        classes = f", {about.spec.classes} classes" if about.spec.classes else ""
        rate = about.spec.rate
        long = f"{about.spec.shape[-1] / rate:.3g} s at {rate:,} Hz, " if rate else ""
        facts.append(("Example", " × ".join(map(str, about.spec.shape)), long + levels + classes))
    if about.data.sizes:
        split, count = next(iter(about.data.sizes.items()))
        facts.append(("Data", f"{count:,}", f"{split} examples"))
    if parameters := about.parameters:
        several = len(parameters) > 1
        parts = ", ".join(f"{name} {count:,}" for name, count in parameters.items()) if several else ""
        together = about.parameters_in_all or sum(parameters.values())
        facts.append(("Parameters", f"{together:,}", parts))
    if lines:
        steps = ", ".join(f"{stage.name} {stage.reached:,}" for stage in stages) if len(stages) > 1 else ""
        facts.append(("Steps", f"{sum(stage.reached for stage in stages):,}", steps))
    if took := metrics.seconds(lines):
        facts.append(("Training time", notation.duration(took), about.machine))
    if about.recipe:
        facts.append(("Recipe", about.recipe, about.source))
    return facts


def _figure(figure: Measured) -> Figure:
    value, error = notation.with_error(figure.value, figure.standard_error)
    interval = ""
    if figure.interval is not None:
        (value, interval), error = _with_interval(figure), ""
    floor = notation.between(*figure.floor) if figure.floor is not None else ""
    bound = _BOUNDS.get(figure.better or "", "") if figure.kind == "bound" else ""
    return Figure(
        name=figure.name,
        sign=bound or _SIGNS.get(figure.kind, ""),
        value=value,
        error=error,
        interval=interval,
        unit=figure.unit,
        kind=figure.kind,
        note="; ".join(filter(None, (floor and f"real data {floor}", figure.note))),
    )


def _with_interval(figure: Measured) -> tuple[str, str]:
    value, ends = notation.with_interval(figure.value, figure.interval)
    return value, f"[{', '.join(ends)}]" if ends else ""


def _strips(figures: Sequence[Measured]) -> tuple[list[Strip], str]:
    """The strips of what can be drawn, and how most of them were taken, said once."""
    drawn = [figure for figure in figures if drawable(figure) and not figure.id.startswith(_CURVE)]
    taken = [_taken(figure.provenance) for figure in drawn]
    clauses = list(zip(*(clauses for clauses in taken if clauses), strict=True))
    usual = [max(kind, key=kind.count) for kind in clauses]
    strips = []
    for figure, there in zip(drawn, taken, strict=True):
        value, interval = _with_interval(figure)
        strips.append(
            Strip(
                name=figure.name,
                value=value,
                interval=interval,
                unit=figure.unit,
                note=figure.note,
                better=_DIRECTIONS[figure.better],
                standing=standing(figure),
                differing=" ".join(c for c, most in zip(there, usual, strict=False) if c and c != most),
                drawings=[strip(figure, width) for width in (NARROW, WIDE)],
            )
        )
    said = list(filter(None, usual))
    return strips, " ".join([*said, *_no_fid(drawn), *_decades(drawn)])


def _taken(provenance: Provenance | None) -> tuple[str, ...]:
    """How a measure was taken, as sentences; there are the same number of them for each."""
    if provenance is None:
        return ()
    p = provenance
    accuracy = (
        f", which puts {p.accuracy:.1%} of these real examples into the right class"
        if p.accuracy is not None
        else ""
    )
    weights = f" (weights {p.weights[:12]})" if p.weights else ""
    drawn = ", ".join(f"{name} {_setting(value)}" for name, value in p.sampling.items())
    seeds = f"seed{'s' if len(p.seeds) != 1 else ''} {', '.join(map(str, p.seeds))}" if p.seeds else ""
    how = "; ".join(filter(None, (drawn, seeds)))
    return (
        f"Measured by: {p.features}{weights}{accuracy}.",
        f"{p.n:,} samples against {p.n:,} real examples of the {p.split} split of {_short(p.data)}.",
        f"Drawn with {how}." if how else "",
    )


def _no_fid(figures: Sequence[Measured]) -> list[str]:
    """What a Fréchet distance is not, unless it sees what FID sees."""
    distances = [figure for figure in figures if "fréchet" in f"{figure.name} {figure.quantity}".lower()]
    own = [f for f in distances if f.provenance is None or "inception" not in f.provenance.features.lower()]
    note = (
        "The Fréchet distance here is not FID, which takes the features of Inception: "
        "it compares only with others by the same features, n and split."
    )
    return [note] if own else []


def _decades(figures: Sequence[Measured]) -> list[str]:
    """How a logarithmic axis is read, if there is one."""
    axes = [axis_of(figure, WIDE) for figure in figures]
    wanted = any(axis.log or axis.near for axis in axes)
    return ["Where labels of an axis are 0.1, 1, 10, each is ten times the one before."] if wanted else []


def _raw_bits(levels: int | None, figures: Sequence[Figure]) -> str:
    """What a value of raw data takes, beside which figures in bits/dim read."""
    wanted = levels and any(figure.unit == "bits/dim" for figure in figures)
    return notation.number(math.log2(levels)) if levels and wanted else ""


def _codebooks(codebooks: Sequence[Codebook]) -> list[Chart]:
    charts = []
    for i, book in enumerate(codebooks, start=1):
        title = f"Codebook {book.name or (i if len(codebooks) > 1 else '')}".strip()
        share = f"{notation.number(book.perplexity)}, {book.perplexity / book.size:.0%} of even use"
        summary = f"{book.used:,} of {book.size:,} codes used; perplexity {share}"
        svg = usage_chart(book.usage, book.perplexity, title=f"{title}: uses of each code, sorted")
        charts.append(Chart(title=title, unit="", svg=svg, summary=summary))
    return charts


def _stages(run: Path, lengths: Mapping[str, Length], lines: list[metrics.Entry]) -> list[Stage]:
    terms, progress, sheets = (
        metrics.by_stage(lines),
        metrics.progress(lines),
        over_time(run / "samples", "step"),
    )
    stages = []
    for name in dict.fromkeys([*lengths, *terms, *sheets]):
        planned = lengths[name].steps if name in lengths else None
        reached, interval = progress.get(name, (0, 1))
        stages.append(
            Stage(
                name=name,
                steps=planned,
                reached=reached,
                behind=planned is not None and planned - reached >= interval,
                charts=[_chart(term) for term in terms.get(name, [])],
                sheets=progression(sheets.get(name, []), name),
                sheets_in_all=len(sheets.get(name, [])),
            )
        )
    return stages


def _chart(term: Term) -> Chart:
    title, unit = notation.term(term.name)
    whole = term.name == "learning_rate" or unit.endswith("/s")
    return Chart(
        title=title,
        unit=unit,
        svg=line_chart(term.splits, title=title, unit=unit, from_zero=whole),
        summary=_ends(term),
    )


def _ends(term: Term) -> str:
    """Where the lines end and how much is not finite; where validation was least, if less is better."""
    words = []
    for split, points in sorted(term.splits.items(), reverse=True):  # validation first
        finite = {step: value for step, value in points.items() if math.isfinite(value)}
        if finite:
            last = max(finite)
            words.append(f"{split if len(term.splits) > 1 else 'last'} {notation.number(finite[last])}")
            least = min(finite, key=lambda step: finite[step])
            if split == "validation" and (term.name == "loss" or "bits_per_" in term.name) and least < last:
                words[-1] += f" (least {notation.number(finite[least])} at step {least:,})"
    wrong = sum(not math.isfinite(value) for points in term.splits.values() for value in points.values())
    return "; ".join(words) + (f"; {wrong:,} not finite (×)" if wrong else "")


def _entries(settings: Mapping[str, Any], depth: int = 0) -> Iterator[Entry]:
    for name, value in settings.items():
        nested = isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value)
        inner = {str(i): item for i, item in enumerate(value)} if nested else value
        if isinstance(inner, dict) and inner:
            yield Entry(depth=depth, name=str(name), value=None)
            yield from _entries(inner, depth + 1)
        else:
            yield Entry(depth=depth, name=str(name), value=_setting(value))


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ({}, []):
        return "none"
    if isinstance(value, list):
        return ", ".join(map(_setting, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def _side_by_side(stages: Mapping[str, Any]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The optimization of the stages as one table: the stages, and a row of values for each setting."""
    flat = {
        stage: {e.name: e.value for e in _entries(settings) if e.value is not None}
        for stage, settings in stages.items()
    }
    names = dict.fromkeys(name for settings in flat.values() for name in settings)
    return list(flat), [(name, [settings.get(name) or "" for settings in flat.values()]) for name in names]
