"""How far a measure would move if its examples were drawn anew."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from ancestral.configuration import Range
from ancestral.errors import UserError, check_at_least, check_type


@dataclass(frozen=True)
class Interval:
    """A confidence interval, in units of the measure."""

    low: float
    high: float


def subsampled(measure: Callable[..., float], *features: Tensor, **options: float) -> Interval:
    """The interval of ``subsampled_all`` for a measure that gives one number; the options are the same.

    >>> x = torch.randn(400, 1, generator=torch.Generator().manual_seed(0))
    >>> found = subsampled(lambda x: float(x.mean()), x)  # theory: 2 * 1.96 / sqrt(400) = 0.196
    >>> 0.1 < found.high - found.low < 0.3
    True
    """
    chosen: Any = options
    return subsampled_all(lambda *sets: {"value": measure(*sets)}, *features, **chosen)["value"]


def subsampled_all(
    measure: Callable[..., Mapping[str, float]],
    *features: Tensor,
    share: float = 0.5,
    repeats: int = 20,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    r"""Confidence intervals of measures of sets, from subsets drawn without replacement.

    A bootstrap repeats examples, and a repeated example is its own copy: it biases distances, precision and
    the like. Subsets (Politis & Romano, 1994, https://doi.org/10.1214/aos/1176325770) repeat none.

    A measure whose variance is :math:`\sigma^2 / n`, as of means and what is smooth in them, varies among
    subsets of m of the same n by only :math:`\sigma^2 (1/m - 1/n)`. Its standard deviation at n is therefore
    theirs times :math:`\sqrt{m / (n - m)}`. The interval is the value of the full sets plus or minus
    Student's t times that.

    It holds what the measure is on average *at these numbers of examples*. A bias that depends on n, as of
    the Fréchet distance, stays in it; the larger bias of the smaller subsets does not enter, as they only
    say how wide it is. Between sets of one distribution, where distances vary by 1/n and not by its root, it
    is about twice too wide. It may reach beyond what the measure can be. A set that the ``measure`` holds
    fast, such as a reference's moments, is taken as exact.

    Args:
        measure: A function of as many sets as are given; it gives numbers by name. What it leaves out of
            subsets, as too small for it, has no interval.
        features: Sets ``(N, ...)``, each cut to the same share.
        share: Share of each set that a subset holds, within (0, 1).
        repeats: Subsets, at least 2.
        seed: Of the subsets; no other random state is touched.
        level: Probability that the interval holds, within (0, 1).

    Raises:
        UserError: no set or one of fewer than 2 examples, an option out of its range, or what ``measure``
            raises of a subset that is too small for it.
    """
    Range(above=0, below=1).check("share", share)
    Range(above=0, below=1).check("level", level)
    check_at_least(2, repeats=repeats)
    sizes = [_size(x, share) for x in features]
    if not sizes:
        raise UserError("expected at least 1 set of features, got 0", "give those that the measure takes")
    generator = torch.Generator().manual_seed(seed)

    def subset(x: Tensor, size: int) -> Tensor:
        return x[torch.randperm(len(x), generator=generator)[:size].to(x.device)]

    values = measure(*features)
    subsets = [measure(*map(subset, features, sizes)) for _ in range(repeats)]
    left_out = sum(map(len, features)) - sum(sizes)
    scale = _student_t(level, repeats - 1) * math.sqrt(sum(sizes) / left_out)
    found = {}
    for name, value in values.items():
        if any(name not in subset for subset in subsets):
            continue
        half = scale * float(torch.tensor([float(s[name]) for s in subsets], dtype=torch.float64).std())
        found[name] = Interval(float(value) - half, float(value) + half)
    return found


def _size(x: Tensor, share: float) -> int:
    check_type(x, Tensor, "features as a tensor", "convert with torch.as_tensor")
    if x.ndim == 0 or len(x) < 2:
        problem = f"expected at least 2 examples in a set of features, got shape {tuple(x.shape)}"
        raise UserError(problem, "give more examples")
    return min(max(1, round(share * len(x))), len(x) - 1)


def _student_t(level: float, degrees: int) -> float:
    """Quantile of |t|; the expansion of Abramowitz & Stegun 26.7.5, within 1 % from 5 degrees at 0.95.

    Quantiles of few deviations would be far too narrow: of 20, those at 0.95 span 3.3 deviations, not 3.9.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / degrees + second / degrees**2


def bootstrap(values: Tensor, repeats: int = 1000, seed: int = 0, level: float = 0.95) -> Interval:
    """Percentile bootstrap interval (Efron, 1979, https://doi.org/10.1214/aos/1176344552) of a mean.

    For what is a mean over examples, such as errors, costs and hits. Other measures see the repeated
    examples: see ``subsampled``.

    Args:
        values: One for each example, ``(N,)``.
        repeats: Sets drawn with replacement, at least 2.
        seed: Of the draws; no other random state is touched.
        level: Probability that the interval holds, within (0, 1).

    Raises:
        UserError: fewer than 2 values, not 1-dimensional, not finite, or an option out of its range.

    >>> bootstrap(torch.tensor([1.0, 1.0, 1.0]))
    Interval(low=1.0, high=1.0)
    """
    values = checked_values(2, values=values)
    Range(above=0, below=1).check("level", level)
    check_at_least(2, repeats=repeats)
    generator, n = torch.Generator().manual_seed(seed), len(values)
    means = torch.stack(
        [values[torch.randint(n, (n,), generator=generator).to(values.device)].mean() for _ in range(repeats)]
    )
    low, high = torch.quantile(means, means.new_tensor([(1 - level) / 2, (1 + level) / 2])).tolist()
    return Interval(low, high)


def checked_values(least: int, **named: Tensor) -> Tensor:
    """The one tensor ``(N,)`` that is given by its name, in float64, without gradients.

    Raises:
        UserError: it is not 1-dimensional, not finite, or of fewer than ``least`` values.
    """
    ((name, values),) = named.items()
    check_type(values, Tensor, f"{name} as a tensor", "convert with torch.as_tensor")
    if values.ndim != 1 or len(values) < least:
        problem = f"expected {name} of shape (N,) with N of at least {least}, got {tuple(values.shape)}"
        raise UserError(problem, "give one value for each example")
    if broken := int((~values.isfinite()).sum()):
        problem = f"expected finite {name}, got NaN or infinity in {broken:,} of {len(values):,}"
        raise UserError(problem, "look at those examples")
    return values.detach().double()
