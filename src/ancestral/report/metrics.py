"""The metrics of a run: lines of JSON to series of points, a stage and a term at a time."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Points = dict[int, float]
"""Step to value; values may be NaN or infinite."""

Entry = dict[str, Any]
"""One line: ``stage`` and ``step``, it may be ``split`` and ``seconds``, and terms."""

_LAST_STEP = 2**53
"""Up to which floats tell steps apart."""
_MOST = 1e100
"""The largest value that is drawn; the sum or the square of larger ones may be infinite."""
_BOOKKEEPING = {"stage", "phase", "step", "split", "seconds", "time", "epoch"}
_LAST = {
    "learning_rate": 1,
    "grad_norm": 2,
    "gradient_norm": 2,
    "steps_per_second": 3,
    "examples_per_second": 3,
}


@dataclass(frozen=True, kw_only=True)
class Term:
    """One quantity that was logged in one stage."""

    name: str
    splits: dict[str, Points]
    """``train`` and ``validation`` to their points, in order of the steps."""


def read_lines(path: Path) -> list[Entry]:
    """The entries of ``metrics.jsonl``.

    Lines that are none are dropped: a run that was killed, or that is being written, may end in a torn one.
    """
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", errors="replace") as file:
        return [entry for text in file if (entry := _entry(text)) is not None]


def _entry(text: str) -> Entry | None:
    """What a line logs: text and finite or infinite numbers by name. None if it says no step of no stage."""
    try:
        line = json.loads(text, parse_int=float)  # which takes figures of any length
    except (ValueError, RecursionError):
        return None
    if not (isinstance(line, dict) and isinstance(line.get("stage"), str)):
        return None
    if not isinstance(line.get("split"), str | None):
        return None
    step = line.get("step")
    if not (isinstance(step, float) and 0 <= step <= _LAST_STEP and step.is_integer()):
        return None
    return line | {"step": int(step)}


def by_stage(lines: Iterable[Entry]) -> dict[str, list[Term]]:
    """Every numeric term of every stage, what matters first.

    Of a step that was logged twice (a resumed run) the later line counts.
    A value logged as null or as "NaN" is kept, as NaN: that a figure could not be computed is news.
    """
    stages: dict[str, dict[str, dict[str, Points]]] = {}
    for line in lines:
        terms = stages.setdefault(line["stage"], {})
        split = line.get("split") or "train"
        for name, value in line.items():
            if name not in _BOOKKEEPING and (number := _number(value)) is not None:
                terms.setdefault(name, {}).setdefault(split, {})[line["step"]] = number
    return {
        stage: sorted((_term(*item) for item in terms.items()), key=_importance)
        for stage, terms in stages.items()
    }


def _number(value: object) -> float | None:
    if value is None or value in ("NaN", "Infinity", "-Infinity"):
        return float(value or "nan")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= _MOST or math.isnan(value) else math.copysign(math.inf, value)


def _term(name: str, splits: dict[str, Points]) -> Term:
    return Term(name=name, splits={split: dict(sorted(points.items())) for split, points in splits.items()})


def _importance(term: Term) -> tuple[int, bool, bool]:
    return _LAST.get(term.name, 0), term.name != "loss", "validation" not in term.splits


def seconds(lines: Iterable[Entry]) -> float:
    """The time that the training took: the clock may start again with a stage or when a run is resumed."""
    total = high = 0.0
    for line in lines:
        now = _number(line.get("seconds"))
        if now is None or not 0 <= now < float("inf"):
            continue
        if now < high / 2:
            total, high = total + high, 0.0
        high = max(high, now)
    return total + high


def progress(lines: Iterable[Entry]) -> dict[str, tuple[int, int]]:
    """For each stage the last step that it logged, and how many steps lie between its last two."""
    steps: dict[str, set[int]] = {}
    for line in lines:
        steps.setdefault(line["stage"], set()).add(line["step"])
    return {
        stage: (max(logged), max(logged) - max(logged - {max(logged)}, default=0))
        for stage, logged in steps.items()
    }
