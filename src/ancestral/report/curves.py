"""Charts as inline SVG: lines over training steps, and how often the codes of a codebook are used.

The charts carry classes and no colors: the page's style sheet gives those, for light, dark and paper.
Hovering or touching a chart shows the values there, without a script.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ancestral.report.axis import Axis
from ancestral.report.metrics import Points
from ancestral.report.notation import number

WIDTH, HEIGHT = 320, 204
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 26, 36
_MOST_POINTS = 240
_MOST_HITS = 60


@dataclass(frozen=True, kw_only=True)
class _Point:
    """One value, or the mean of neighboring ones, drawn at ``step``; it stands for the steps first..step."""

    first: int
    step: int
    value: float
    """NaN where no value of the group is finite."""


def line_chart(splits: Mapping[str, Points], *, title: str, unit: str, from_zero: bool = False) -> Markup:
    """Lines of one term over the steps, one for each split.

    Long series are drawn as means of neighboring points. Values that are not finite leave a gap and a mark
    on the lower edge. A peak in the first steps that would flatten the rest runs out of the chart; more than
    two decades get a logarithmic axis.
    """
    series = {split: _grouped(points) for split, points in splits.items() if points}
    steps = [p.step for points in series.values() for p in points]
    values = _settled(series)
    if not values:
        return Markup('<p class="none">No finite value was logged.</p>')
    log = not from_zero and min(values) > 0 and max(values) / min(values) > 100
    low, high = _range([*values, 0.0] if from_zero else values, log=log)
    x = Axis(min(0, *steps), max(1, *steps), _LEFT, WIDTH - _RIGHT)
    y = Axis(low, high, HEIGHT - _BOTTOM, _TOP, log=log)
    label = f"{unit}{' ' if unit and log else ''}{'(log)' if log else ''}"
    clip = Markup('<svg x="{0}" y="{1}" width="{2}" height="{3}" viewBox="{0} {1} {2} {3}">').format(
        _LEFT - 4, _TOP - 4, WIDTH - _LEFT - _RIGHT + 8, HEIGHT - _TOP - _BOTTOM + 8
    )
    lines = Markup("").join(_line(points, split, x, y) for split, points in series.items())
    wrong = sorted(
        {step for points in splits.values() for step, value in points.items() if not math.isfinite(value)}
    )
    marks = Markup("").join(
        Markup(
            '<path class="wrong" d="M{:.1f} {:.1f}l6 6m0-6l-6 6"><title>step {:,}: not finite</title></path>'
        ).format(x(step) - 3, y.start - 7, step)
        for step in wrong[:: max(len(wrong) // 40, 1)]
    )
    content = clip + lines + Markup("</svg>") + marks + _hits(series, x, y)
    return _frame(x, y, content, x_label="step", y_label=label, title=f"{title} in {unit}" if unit else title)


def usage_chart(counts: Sequence[float], perplexity: float | None, *, title: str) -> Markup:
    """How often each code is used, the most used first, on a logarithmic axis, with the perplexity marked."""
    ordered = sorted((float(count) for count in counts), reverse=True)
    used = [count for count in ordered if count > 0]
    if not used:
        return Markup('<p class="none">No code was used.</p>')
    total = sum(used)
    x = Axis(0, len(ordered), _LEFT, WIDTH - _RIGHT)
    low, high = 10.0 ** math.floor(math.log10(used[-1])), 10.0 ** math.ceil(math.log10(used[0] * 1.01))
    y = Axis(low / (2 if used[-1] == low else 1), high, HEIGHT - _BOTTOM, _TOP, log=True)
    groups = _ranks(len(used), _MOST_POINTS)
    outline = "".join(f"V{y(statistics.fmean(used[a:b])):.1f}H{x(b):.1f}" for a, b in groups)
    parts = [
        Markup('<path class="area" d="M{:.1f} {:.1f}{}V{:.1f}Z"/>').format(x(0), y.start, outline, y.start)
    ]
    if len(used) < len(ordered):
        parts.append(
            Markup(
                '<rect class="unused" x="{:.1f}" y="{}" width="{:.1f}" height="{}">'
                "<title>{:,} codes are never used</title></rect>"
            ).format(
                x(len(used)),
                _TOP,
                x(len(ordered)) - x(len(used)),
                HEIGHT - _TOP - _BOTTOM,
                len(ordered) - len(used),
            )
        )
    if perplexity is not None and 0 < perplexity <= len(ordered):
        at = x(perplexity)
        left = at > (WIDTH + _LEFT) / 2
        parts.append(
            Markup(
                '<path class="mark" d="M{0:.1f} {1}V{2}"/>'
                '<text class="marked" x="{3:.1f}" y="{4}" text-anchor="{5}">{6}</text>'
            ).format(
                at,
                _TOP,
                HEIGHT - _BOTTOM,
                at + (-5 if left else 5),
                _TOP + 11,
                "end" if left else "start",
                f"perplexity {number(perplexity)}",
            )
        )
    for a, b in _ranks(len(used), _MOST_HITS):
        mean = statistics.fmean(used[a:b])
        rank = f"rank {a + 1:,}" if b == a + 1 else f"ranks {a + 1:,} to {b:,}"
        text = f"{rank}: {number(mean, 3)} uses ({number(100 * mean / total, 2)} %)"
        parts.append(_hit(x(a), x(b), (x(a) + x(b)) / 2, text, Markup("")))
    return _frame(
        x, y, Markup("").join(parts), x_label="codes, most used first", y_label="uses (log)", title=title
    )


def _grouped(points: Points) -> list[_Point]:
    items = list(points.items())
    size = max(math.ceil(len(items) / _MOST_POINTS), 1)
    groups = []
    for start in range(0, len(items), size):
        group = items[start : start + size]
        finite = [value for _, value in group if math.isfinite(value)]
        groups.append(
            _Point(
                first=group[0][0], step=group[-1][0], value=statistics.fmean(finite) if finite else math.nan
            )
        )
    return groups


def _settled(series: Mapping[str, list[_Point]]) -> list[float]:
    """The finite values that decide the axis: without an early peak if that would flatten the rest."""
    every = [p.value for points in series.values() for p in points if math.isfinite(p.value)]
    later = [
        p.value
        for points in series.values()
        for p in points[max(len(points) // 25, 1) :]
        if math.isfinite(p.value)
    ]
    if len(later) < 8 or max(every) - min(every) < 3 * (max(later) - min(later)):
        return every
    return later


def _range(values: list[float], *, log: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if log:
        return low / 1.2, high * 1.2
    margin = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return (0.0 if 0 <= low <= 0.25 * high else low - margin), high + margin


def _line(points: list[_Point], split: str, x: Axis, y: Axis) -> Markup:
    path, pen_up, dots = [], True, []
    for i, p in enumerate(points):
        if not math.isfinite(p.value):
            pen_up = True
            continue
        path.append(f"{'M' if pen_up else 'L'}{x(p.step):.1f} {y(p.value):.1f}")
        alone = pen_up and (i + 1 == len(points) or not math.isfinite(points[i + 1].value))
        if alone or (split != "train" and len(points) <= 30):
            dots.append(Markup('<circle cx="{:.1f}" cy="{:.1f}" r="2"/>').format(x(p.step), y(p.value)))
        pen_up = False
    kind = split if split in ("train", "validation") else "other"
    return Markup('<g class="line {}"><path d="{}"/>{}</g>').format(
        kind, "".join(path), Markup("").join(dots)
    )


def _hits(series: Mapping[str, list[_Point]], x: Axis, y: Axis) -> Markup:
    """Upright strips that show the values at one step while the pointer is on them."""
    steps = sorted(
        {p.step for points in series.values() for p in points[:: max(math.ceil(len(points) / _MOST_HITS), 1)]}
    )
    strips = []
    for i, step in enumerate(steps):
        left = x.start if i == 0 else (x(steps[i - 1]) + x(step)) / 2
        right = x.end if i + 1 == len(steps) else (x(step) + x(steps[i + 1])) / 2
        there = {
            split: p.value for split, points in series.items() for p in points if p.first <= step <= p.step
        }
        text = f"step {step:,}: " + ", ".join(f"{split} {number(value)}" for split, value in there.items())
        dots = (
            Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3"/>').format(x(step), y(value))
            for value in there.values()
            if math.isfinite(value) and y.low <= value <= y.high
        )
        strips.append(_hit(left, right, x(step), text, Markup("").join(dots)))
    return Markup("").join(strips)


def _hit(left: float, right: float, at: float, text: str, dots: Markup) -> Markup:
    return Markup(
        '<g class="hit"><rect x="{:.1f}" y="{}" width="{:.1f}" height="{}"><title>{}</title></rect>'
        '<path d="M{:.1f} {}V{}"/>{}<text x="{}" y="12" text-anchor="end">{}</text></g>'
    ).format(
        left,
        _TOP,
        right - left,
        HEIGHT - _TOP - _BOTTOM,
        text,
        at,
        _TOP,
        HEIGHT - _BOTTOM,
        dots,
        WIDTH - _RIGHT,
        text,
    )


def _ranks(count: int, most: int) -> list[tuple[int, int]]:
    """At most ``most`` neighboring ranges that together are 0..count."""
    groups = min(count, most)
    return [(i * count // groups, (i + 1) * count // groups) for i in range(groups)]


def _frame(x: Axis, y: Axis, content: Markup, *, x_label: str, y_label: str, title: str) -> Markup:
    parts = [
        Markup(
            '<path class="grid" d="M{} {:.1f}H{}"/><text x="{}" y="{:.1f}" text-anchor="end">{}</text>'
        ).format(_LEFT, y(value), WIDTH - _RIGHT, _LEFT - 7, y(value) + 3.5, label)
        for value, label in y.ticks(5)
    ]
    for value, label in x.ticks(4):
        anchor = "end" if x(value) > x.end - 8 else "middle"
        parts.append(
            Markup(
                '<path class="tick" d="M{:.1f} {}v4"/><text x="{:.1f}" y="{}" text-anchor="{}">{}</text>'
            ).format(
                x(value),
                HEIGHT - _BOTTOM,
                x(value) + (4 if anchor == "end" else 0),
                HEIGHT - _BOTTOM + 15,
                anchor,
                label,
            )
        )
    return Markup(
        '<svg class="chart" viewBox="0 0 {w} {h}" role="img" aria-label="{title}">{parts}'
        '<path class="axis" d="M{left} {base}H{right}"/>'
        '<text class="unit" x="{edge}" y="12">{y_label}</text>'
        '<text class="unit" x="{right}" y="{below}" text-anchor="end">{x_label}</text>{content}</svg>'
    ).format(
        w=WIDTH,
        h=HEIGHT,
        title=title,
        parts=Markup("").join(parts),
        left=_LEFT,
        right=WIDTH - _RIGHT,
        base=HEIGHT - _BOTTOM,
        edge=2,
        y_label=y_label,
        below=HEIGHT - 5,
        x_label=x_label,
        content=content,
    )
