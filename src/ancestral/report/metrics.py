"""The metrics of a run: lines of JSON to series of points, a stage and a term at a time."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Points = dict[int, float]
"""Step to value; values may be NaN or infinite."""

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


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines that are whole: a run that was killed, or that is being written, may end in a torn one."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if (
            isinstance(line, dict)
            and isinstance(line.get("step"), int)
            and isinstance(line.get("stage"), str)
        ):
            lines.append(line)
    return lines


def by_stage(lines: Iterable[dict[str, Any]]) -> dict[str, list[Term]]:
    """Every numeric term of every stage, what matters first.

    Of a step that was logged twice (a resumed run) the later line counts.
    A value logged as null or as "NaN" is kept, as NaN: that a figure could not be computed is news.
    """
    stages: dict[str, dict[str, dict[str, Points]]] = {}
    for line in lines:
        terms = stages.setdefault(line["stage"], {})
        split = str(line.get("split") or "train")
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
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _term(name: str, splits: dict[str, Points]) -> Term:
    return Term(name=name, splits={split: dict(sorted(points.items())) for split, points in splits.items()})


def _importance(term: Term) -> tuple[int, bool, bool]:
    return _LAST.get(term.name, 0), term.name != "loss", "validation" not in term.splits


def seconds(lines: Iterable[dict[str, Any]]) -> float:
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


def progress(lines: Iterable[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """For each stage the last step that it logged, and how many steps lie between its last two."""
    steps: dict[str, set[int]] = {}
    for line in lines:
        steps.setdefault(line["stage"], set()).add(line["step"])
    return {
        stage: (max(logged), max(logged) - max(logged - {max(logged)}, default=0))
        for stage, logged in steps.items()
    }
