"""The axis of a chart: values to positions, and the round values that it is labelled with."""

import math

from ancestral.report.notation import decades, plain, tick


class Axis:
    """Values to positions, linear or logarithmic.

    With ``near``, for values of which some are 0 or negative, linear up to about that far from 0 and
    logarithmic beyond: the inverse hyperbolic sine.

    >>> axis = Axis(1, 100, 0, 20, log=True)
    >>> axis(10), axis.ticks(5)
    (10.0, [(1.0, '1'), (10.0, '10'), (100.0, '100')])
    >>> axis = Axis(-1, 1000, 0, 20, near=1)
    >>> axis.ticks(5)
    [(0.0, '0'), (10.0, '10'), (100.0, '100'), (1000.0, '1,000')]
    """

    def __init__(
        self, low: float, high: float, start: float, end: float, *, log: bool = False, near: float = 0.0
    ) -> None:
        self.low, self.high, self.start, self.end, self.log, self.near = low, high, start, end, log, near

    def __call__(self, value: float) -> float:
        """Where a value lies."""
        value, low, high = map(self._moved, (value, self.low, self.high))
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def _moved(self, value: float) -> float:
        if self.near:
            return math.asinh(value / self.near)
        return math.log10(max(value, 1e-300)) if self.log else value

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """At most about ``most`` round values within the axis, and their labels."""
        if self.near:
            return self._signed_ticks(most)
        if self.log:
            exponents = list(
                range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            )
            exponents = exponents[:: max(math.ceil(len(exponents) / most), 1)]
            return [(10.0**e, label) for e, label in zip(exponents, decades(exponents), strict=True)]
        rough = (self.high - self.low) / most
        scale = 10.0 ** math.floor(math.log10(rough))
        step = next(m * scale for m in (1, 2, 5, 10) if m * scale >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(i * step, tick(i * step, step)) for i in range(first, last + 1)]

    def _signed_ticks(self, most: int) -> list[tuple[float, str]]:
        """0, and powers of ten on both sides, but for those so near to 0 that they stand beside it."""
        last = math.floor(math.log10(max(abs(self.low), self.high)) + 1e-9)
        first = min(math.ceil(math.log10(2 * self.near)), last)
        exponents = range(first, last + 1, max(math.ceil((last + 1 - first) / most), 1))
        values = [-(10.0**e) for e in reversed(exponents)] + [0.0] + [10.0**e for e in exponents]
        return [(v, plain(v)) for v in values if self.low <= v <= self.high * (1 + 1e-9)]
