"""Strips as inline SVG: a measure of samples beside what real data get, and what known faults get.

Like the charts they carry classes and no colors. Each is drawn for one width, so that its labels keep their
size: the page shows that which fits.
"""

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from ancestral.figures import Figure
from ancestral.report.axis import Axis
from ancestral.report.notation import between, plain, with_interval

NARROW, WIDE = 280, 640
"""Widths: of a phone, and of everything else."""
_MARGIN = 10
_TOP, _LINE, _LANE, _BELOW = 4, 14, 30, 20
"""Heights: above all, of the label of real data, of a mark with its label below, of the axis' labels."""
_GAP = 10
"""Between labels beside each other."""
_LEAST_BAND = 3
_DECADES = 20
"""Values that span this factor get a logarithmic axis, if they are distances."""
_MOST = 1e100
"""The largest value that is drawn."""


@dataclass(frozen=True, kw_only=True)
class _Mark:
    """A value with its label, and where they are drawn."""

    name: str
    written: str
    at: float
    shown: str
    """The name, or as much of it as there is room for."""
    left: float
    right: float
    """Ends of the label."""


def drawable(figure: Figure) -> bool:
    """Whether there is something to see a figure's value beside."""
    return _finite(figure.value) and (_floor(figure) is not None or bool(_faults(figure)))


def strip(figure: Figure, width: int) -> Markup:
    """One figure: a band of what real data get, the model with its interval, a tick for each known fault."""
    axis = axis_of(figure, width)
    floor, lanes, ticks = _floor(figure), _lanes(figure, axis, width), _ticks(axis, width)
    top = _TOP + (_LINE if floor else 0)
    base = top + _LANE * (1 + len(lanes))
    grid = Markup('<path class="grid" d="M{:.2f} {}V{}"/>')
    tick = Markup(
        '<path class="tick" d="M{:.2f} {}v4"/><text x="{:.2f}" y="{}" text-anchor="middle">{}</text>'
    )
    parts = [grid.format(axis(value), top, base) for value, *_ in ticks]
    parts += [_band(floor, axis, width, base)] if floor else []
    parts.append(Markup('<path class="mark" d="M{:.2f} {}V{}"/>').format(axis(figure.value), top + 9, base))
    parts.append(_model(figure, axis, width, top + 9))
    parts += [_fault(mark, top + _LANE * i + 9) for i, lane in enumerate(lanes, start=1) for mark in lane]
    parts += [tick.format(axis(value), base, middle, base + 16, label) for value, label, middle in ticks]
    return Markup(
        '<svg class="chart measured {}" viewBox="0 0 {} {}" role="img"><title>{}</title><desc>{}</desc>{}'
        '<path class="axis" d="M{} {}H{}"/></svg>'
    ).format(
        "narrow" if width == NARROW else "wide",
        width,
        base + _BELOW,
        figure.name,
        described(figure),
        Markup("").join(parts),
        _MARGIN,
        base,
        width - _MARGIN,
    )


def axis_of(figure: Figure, width: int) -> Axis:
    """The axis that all numbers of a figure lie on.

    Distances that span decades get a logarithmic one, on which what is 0 or less, as unbiased estimates may
    be, lies as near to 0 as real data do. All else is linear and begins at 0; shares end at 1.
    """
    values = [figure.value, *(_floor(figure) or ()), *(_interval(figure) or ()), *_faults(figure).values()]
    low, high, ends = min(values), max(values), (_MARGIN, width - _MARGIN)
    if figure.better == "lower":
        if low > 0 and high > _DECADES * low:
            return Axis(low / 1.4, high * 1.4, *ends, log=True)
        near = max(map(abs, _floor(figure) or (0.0,))) or min((abs(v) for v in values if v), default=0.0)
        if low <= 0 and near and max(high, -low) > _DECADES * near:
            return Axis(min(1.4 * low, -near), 1.4 * high if high > 0 else near, *ends, near=near)
    high = 1.0 if 0.5 <= high <= 1 else 1.1 * high if high > 0 else 0.0
    low = 1.1 * low if low < 0 else 0.0
    return Axis(low, high if high > low else low + 1, *ends)


def described(figure: Figure) -> str:
    """What a strip shows, in words."""
    value, interval = with_interval(figure.value, _interval(figure))
    parts = [f"This model: {value}{f', between {interval[0]} and {interval[1]}' if interval else ''}"]
    if floor := _floor(figure):
        parts.append(f"real data: {between(*floor)}")
    parts += [f"{name}: {plain(at)}" for name, at in _faults(figure).items()]
    return "; ".join(parts) + "."


def standing(figure: Figure) -> str:
    """Where the model stands among real data and known faults, as a sentence.

    >>> figure = Figure(
    ...     id="d", name="distance", value=8.7, quantity="d", better="lower", floor=(0.01, 0.02),
    ...     references={"slight noise": 1.1, "half of the classes": 14.6},
    ... )
    >>> standing(figure)
    'Worse than “slight noise”, better than “half of the classes”.'
    """
    floor, faults = _floor(figure), _faults(figure)
    low, high = _interval(figure) or (figure.value, figure.value)
    sign = -1 if figure.better == "higher" else 1
    worst = None if floor is None else max(sign * end for end in floor)
    unseen = [
        name for name, at in faults.items() if worst is not None and figure.better and sign * at <= worst
    ]
    seen = {name: sign * at for name, at in faults.items() if name not in unseen}
    if floor is not None and low <= floor[1] and floor[0] <= high:
        words = "Not to be told from real data."
    elif figure.better is None:
        side = "Above" if floor and figure.value > floor[1] else "Below"
        words = f"{side} what real data get." if floor else ""
    elif worst is not None and sign * figure.value < worst:
        words = "Better than real data get, as copies of them can be, or samples of little variety."
    else:
        words = _among(sign * figure.value, seen, beside_real=floor is not None)
    blind = f"It does not notice {' or '.join(f'“{name}”' for name in unseen)}." if unseen else ""
    return " ".join(filter(None, (words, blind)))


def _among(value: float, faults: Mapping[str, float], *, beside_real: bool) -> str:
    """Where a value stands that is worse than real data; the more the worse."""
    milder = [name for name, at in faults.items() if at < value]
    graver = [name for name, at in faults.items() if at > value]
    words = []
    if not graver and len(milder) > 1:
        words.append("worse than every fault shown")
    elif milder:
        words.append(f"worse than “{max(milder, key=lambda name: faults[name])}”")
    elif beside_real:
        words.append("worse than real data")
    if graver:
        words.append(f"better than “{min(graver, key=lambda name: faults[name])}”")
    text = ", ".join(words)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _finite(value: float) -> bool:
    return math.isfinite(value) and abs(value) <= _MOST


def _floor(figure: Figure) -> tuple[float, float] | None:
    return _pair(figure.floor)


def _interval(figure: Figure) -> tuple[float, float] | None:
    return _pair(figure.interval)


def _pair(ends: tuple[float, float] | None) -> tuple[float, float] | None:
    return (min(ends), max(ends)) if ends is not None and all(map(_finite, ends)) else None


def _faults(figure: Figure) -> dict[str, float]:
    return {name: value for name, value in figure.references.items() if _finite(value)}


def _lanes(figure: Figure, axis: Axis, width: int) -> list[list[_Mark]]:
    """The faults, each in the first lane with room for its label."""
    lanes: list[list[_Mark]] = []
    for name, value in sorted(_faults(figure).items(), key=lambda item: item[1]):
        mark = _mark(name, plain(value), axis(value), width)
        free = (lane for lane in lanes if all(_apart(mark, other) for other in lane))
        if lane := next(free, None):
            lane.append(mark)
        else:
            lanes.append([mark])
    return lanes


def _apart(a: _Mark, b: _Mark) -> bool:
    """Whether neither label nor tick of one meets those of the other."""
    return (
        min(b.left, b.at) - max(a.right, a.at) >= _GAP
        or min(a.left, a.at) - max(b.right, b.at) >= _GAP
    )  # fmt: skip


def _mark(name: str, written: str, at: float, width: int, *, bold: bool = False) -> _Mark:
    shown = _cut(name, width - 4 - _extent(f" {written}", bold=bold), bold=bold)
    extent = _extent(f"{shown} {written}", bold=bold)
    middle = _middle(at, extent, width)
    left, right = middle - extent / 2, middle + extent / 2
    return _Mark(name=name, written=written, at=at, shown=shown, left=left, right=right)


def _middle(at: float, extent: float, width: int) -> float:
    """The middle of a text at ``at``, moved as far as it takes to stay in the picture."""
    half = min(extent / 2, width / 2 - 2)
    return min(max(at, 2 + half), width - 2 - half)


def _extent(text: str, *, bold: bool = False) -> float:
    """How wide a text is at most, about, in 12 px of a wide sans serif."""

    def one(character: str) -> float:
        if unicodedata.combining(character):
            return 0
        if unicodedata.east_asian_width(character) in "WF" or character in "mwMW@—…%":
            return 12
        return 5 if character in "iljtf .,:;'|!()[]·" else 9 if character.isupper() else 7.5

    return sum(map(one, text)) * (1.16 if bold else 1)


def _cut(text: str, room: float, *, bold: bool = False) -> str:
    """A text without the end for which there is no room."""
    text = " ".join(text.split())
    if _extent(text, bold=bold) <= room:
        return text
    while text and _extent(f"{text}…", bold=bold) > room:
        text = text[:-1]
    return f"{text.rstrip()}…"


def _band(floor: tuple[float, float], axis: Axis, width: int, base: float) -> Markup:
    start, end = map(axis, floor)
    words = f"real data {between(*floor)}"
    middle, thick = (start + end) / 2, max(end - start, _LEAST_BAND)
    return Markup(
        '<g class="real"><title>{0}</title><rect x="{1:.2f}" y="{2}" width="{3:.2f}" height="{4}"/>'
        '<text x="{5:.2f}" y="{6}" text-anchor="middle">{0}</text></g>'
    ).format(
        words,
        middle - thick / 2,
        _TOP + _LINE,
        thick,
        base - _TOP - _LINE,
        _middle(middle, _extent(words, bold=True), width),
        _TOP + 9,
    )


def _model(figure: Figure, axis: Axis, width: int, y: float) -> Markup:
    interval, whisker = _interval(figure), Markup("")
    value, ends = with_interval(figure.value, interval)
    mark = _mark("this model", value, axis(figure.value), width, bold=True)
    if interval and ends:
        low, high = map(axis, interval)
        whisker = Markup('<path d="M{0:.2f} {2}v10m0-5H{1:.2f}m0-5v10"/>').format(low, high, y - 5)
    span = f", between {ends[0]} and {ends[1]}" if ends else ""
    return Markup('<g class="model"><title>{}{}</title>{}<circle cx="{:.2f}" cy="{}" r="3.5"/>{}</g>').format(
        f"this model {value}", span, whisker, mark.at, y, _label(mark, y)
    )


def _fault(mark: _Mark, y: float) -> Markup:
    return Markup('<g class="fault"><title>{} {}</title><path d="M{:.2f} {}v10"/>{}</g>').format(
        mark.name, mark.written, mark.at, y - 5, _label(mark, y)
    )


def _label(mark: _Mark, y: float) -> Markup:
    return Markup(
        '<text x="{:.2f}" y="{}" text-anchor="middle">{} <tspan class="number">{}</tspan></text>'
    ).format((mark.left + mark.right) / 2, y + 17, mark.shown, mark.written)


def _ticks(axis: Axis, width: int) -> list[tuple[float, str, float]]:
    """Values to label the axis with, their labels and the middles of these, none over another."""
    found: list[tuple[float, str, float]] = []
    reached = 0.0
    for value, label in axis.ticks(4 if width == NARROW else 6):
        written = plain(value) if axis.log or axis.near else label
        half = _extent(written) / 2
        middle = _middle(axis(value), 2 * half, width)
        if middle - half >= reached:
            found.append((value, written, middle))
            reached = middle + half + _GAP / 2
    return found
