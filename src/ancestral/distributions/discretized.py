"""Continuous distributions integrated over the bins of the levels: logistic mixtures and the normal.

The levels 0..L-1 stand at L equidistant points of [-1, 1]; a level's probability is the mass of its bin, and
the first and the last bin take the tails (Salimans et al., PixelCNN++, 2017,
https://arxiv.org/abs/1701.05517, equation 2). So the mass sums to one.
"""

import math
from abc import abstractmethod
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ancestral.distributions.discrete import Discrete, Index


def min_log_scale(levels: int) -> float:
    """Where log-scales are clamped from below, in the loss and in the sampler alike.

    -7 as in the code of Salimans et al., 2017: a ninth of a bin of 256 levels; as small a part of the bins of
    more levels.
    """
    return -7.0 - max(0.0, math.log((levels - 1) / 255))


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(-x)) for x > 0, to 1e-9, with finite gradients everywhere.

    Written without expm1, whose vectorized form under torch.compile on CPUs gives NaN for small arguments.
    """
    split = 0.25
    # Each branch sees only arguments that it is for: else its infinite gradient times 0 would be NaN.
    small = x.clamp(min=torch.finfo(x.dtype).tiny, max=split)
    series = small.log() - small / 2 + small.square() / 24 - small.square().square() / 2880
    return torch.where(x < split, series, torch.log(1 - torch.exp(-x.clamp(min=split))))


def log_ndtr(x: Tensor) -> Tensor:
    """Log of the standard normal's cumulative distribution, with gradients that hold far out on the left.

    Those of torch.special.log_ndtr are exp of a difference of squares: in float32 28 % off at -2,000, and NaN
    from about -50,000 on.
    """
    split = -1.0
    left = x.clamp(max=split)
    tail = torch.special.erfcx(left / -math.sqrt(2)).log() - math.log(2) - left.square() / 2
    return torch.where(x < split, tail, torch.special.log_ndtr(x.clamp(min=split)))


def ndtri_exp(log_p: Tensor) -> Tensor:
    """The z at which ``log_ndtr`` is ``log_p`` < 0: the standard normal's quantile of e^log_p.

    It holds for tails that no float can. By Newton's method, of which the last step carries the gradient.

    >>> ndtri_exp(log_ndtr(torch.tensor([-100.0, -1.0, 0.5]))).round(decimals=3)
    tensor([-100.0000,   -1.0000,    0.5000])
    """
    with torch.no_grad():
        split = -10.0
        far = log_p.clamp(max=split)
        start = -(-2 * far - math.log(2 * math.pi) - (-2 * far).log()).sqrt()
        z = torch.where(log_p < split, start, torch.special.ndtri(log_p.clamp(min=split).exp()))
        for _ in range(3):
            z = z - _newton(z, log_p)
    return z - _newton(z, log_p)


def _newton(z: Tensor, log_p: Tensor) -> Tensor:
    """How far Newton's method goes down from ``z`` to where log_ndtr is ``log_p``."""
    with torch.no_grad():
        value = log_ndtr(z)
        inverse_slope = (value + z.square() / 2 + math.log(2 * math.pi) / 2).exp()
    return (value - log_p) * inverse_slope


class _Binned(Discrete):
    """A continuous distribution with a location and a scale, integrated over the bins."""

    loc: Tensor
    log_scale: Tensor

    def _standardize(self, value: Tensor, loc: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The upper and lower edges of the value's bin, and the bin's width, in units of the scale."""
        inverse_scale = torch.exp(-log_scale)
        centered = value.to(loc.dtype) * (2.0 / (self.levels - 1)) - 1.0 - loc
        half = inverse_scale / (self.levels - 1)
        middle = centered * inverse_scale
        return middle + half, middle - half, 2.0 * half

    @abstractmethod
    def log_prob(self, value: Tensor) -> Tensor:
        """See ``Discrete.log_prob``."""

    @abstractmethod
    def _survival(self, edge: float | Tensor) -> Tensor:
        """P(the continuous variable > edge), ``batch_shape``."""

    @property
    def mean(self) -> Tensor:
        """See ``Discrete.mean``: the sum over t of P(x > t), which needs no table of the levels."""
        total = torch.zeros(self.batch_shape, dtype=self.loc.dtype, device=self.loc.device)
        for t in range(self.levels - 1):
            total += self._survival((2 * t + 1) / (self.levels - 1) - 1)
        return total

    def log_pmf(self) -> Tensor:
        """See ``Discrete.log_pmf``."""
        levels = torch.arange(self.levels, device=self.loc.device).view(-1, *[1] * len(self.batch_shape))
        return self.log_prob(levels.expand(-1, *self.batch_shape)).movedim(0, -1)


class DiscretizedLogisticMixture(_Binned):
    """A mixture of K logistic distributions, integrated over the bins of the levels.

    >>> sharp = torch.full((1, 2), -9.0)
    >>> d = DiscretizedLogisticMixture(torch.zeros(1, 2), torch.tensor([[-1.0, 1.0]]), sharp, levels=3)
    >>> d.log_pmf().exp()  # half of the mass at each end
    tensor([[0.5000, 0.0000, 0.5000]])

    Args:
        logits: unnormalized log weights of the components, ``(*batch_shape, K)``.
        loc: locations in [-1, 1], same shape.
        log_scale: log-scales in the same units, clamped from below at ``min_log_scale``.
        levels: L.
    """

    def __init__(self, logits: Tensor, loc: Tensor, log_scale: Tensor, levels: int) -> None:
        self.logits, self.loc, self.log_scale = logits, loc, log_scale.clamp(min=min_log_scale(levels))
        super().__init__(levels, logits.shape[:-1])

    def _survival(self, edge: float | Tensor) -> Tensor:
        return (self._weights * torch.sigmoid((self.loc - edge) * self._inverse_scale)).sum(-1)

    @cached_property
    def _weights(self) -> Tensor:
        return self.logits.softmax(-1)

    @cached_property
    def _inverse_scale(self) -> Tensor:
        return torch.exp(-self.log_scale)

    @property
    def _terms(self) -> int:
        return self.logits.shape[-1]

    def __getitem__(self, index: Index) -> "DiscretizedLogisticMixture":
        return DiscretizedLogisticMixture(
            self.logits[index], self.loc[index], self.log_scale[index], self.levels
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """See ``Discrete.log_prob``."""
        return torch.logsumexp(self.component_log_prob(value) + self.logits.log_softmax(-1), dim=-1)

    def component_log_prob(self, value: Tensor) -> Tensor:
        """Log P(value) under each component, ``(*batch_shape, K)`` nats."""
        value = value.unsqueeze(-1)
        upper, lower, width = self._standardize(value, self.loc, self.log_scale)
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)): each factor's logarithm is stable
        # everywhere, and the last one depends on the scale alone.
        log_cdf, log_survival = -softplus(-upper), -softplus(lower)
        first, last = value == 0, value == self.levels - 1
        inner = log_cdf + log_survival + log1mexp(width)
        return torch.where(first, log_cdf, torch.where(last, log_survival, inner))

    def quantile(
        self, uniforms: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
    ) -> Tensor:
        """See ``Discrete.quantile``.

        Without a change of the distribution no table of the levels is made: the quantile is bracketed.
        """
        if temperature != 1 or top_k is not None or top_p is not None:
            return super().quantile(uniforms, temperature, top_k, top_p)
        target = 1 - uniforms.to(self.loc.dtype)
        low = torch.zeros(self.batch_shape, dtype=torch.int64, device=self.loc.device)
        high = torch.full_like(low, self.levels - 1)
        for _ in range((self.levels - 1).bit_length()):
            middle = (low + high) // 2
            edge = ((2 * middle + 1).to(self.loc.dtype) / (self.levels - 1) - 1).unsqueeze(-1)
            above = self._survival(edge) >= target
            low, high = torch.where(above, middle + 1, low), torch.where(above, high, middle)
        return low.clamp(max=self.levels - 1)


def coupled_logistic_mixture(
    logits: Tensor, loc: Tensor, log_scale: Tensor, coefficients: Tensor, value: Tensor, *, levels: int
) -> DiscretizedLogisticMixture:
    """The channels' conditionals under a mixture of K components that they share (Salimans et al., 2017).

    Within a component, a channel's location depends linearly on the values of the channels before it
    (equation 3, for any number of channels). Given those values, a channel is again a mixture: each component
    has the weight that they leave it. So the sum of the channels' log-probabilities is that of the joint
    distribution.

    Args:
        logits: ``(N, 1, *grid, K)``, unnormalized.
        loc: ``(N, C, *grid, K)``.
        log_scale: same shape.
        coefficients: tanh's arguments, ``(N, C (C-1) / 2, *grid, K)``: of channel 0 for channel 1; of 0 and 1
            for 2; and so on.
        value: integers ``(N, C, *grid)``; channel c's conditional depends on the channels before c alone.
        levels: L.
    """
    channels = loc.shape[1]
    scaled = value.to(loc.dtype).unsqueeze(-1) * (2.0 / (levels - 1)) - 1.0
    coefficients = coefficients.tanh()
    locations, weights = [loc[:, :1]], [logits]
    pair = 0
    for c in range(1, channels):
        before = DiscretizedLogisticMixture(logits, locations[-1], log_scale[:, c - 1 : c], levels)
        weights.append(weights[-1] + before.component_log_prob(value[:, c - 1 : c]))
        shift = (coefficients[:, pair : pair + c] * scaled[:, :c]).sum(1, keepdim=True)
        locations.append(loc[:, c : c + 1] + shift)
        pair += c
    return DiscretizedLogisticMixture(torch.cat(weights, 1), torch.cat(locations, 1), log_scale, levels)


class DiscretizedNormal(_Binned):
    """A normal distribution integrated over the bins of the levels.

    >>> DiscretizedNormal(torch.zeros(1), torch.zeros(1), 3).log_pmf().exp()  # bins end at -1/2 and 1/2
    tensor([[0.3085, 0.3829, 0.3085]])

    Args:
        loc: locations in [-1, 1], ``batch_shape``.
        log_scale: log standard deviations in the same units, clamped from below at ``min_log_scale``.
        levels: L.
    """

    def __init__(self, loc: Tensor, log_scale: Tensor, levels: int) -> None:
        self.loc, self.log_scale = loc, log_scale.clamp(min=min_log_scale(levels))
        super().__init__(levels, loc.shape)

    def _survival(self, edge: float | Tensor) -> Tensor:
        return torch.special.ndtr((self.loc - edge) * torch.exp(-self.log_scale))

    def __getitem__(self, index: Index) -> "DiscretizedNormal":
        return DiscretizedNormal(self.loc[index], self.log_scale[index], self.levels)

    def log_prob(self, value: Tensor) -> Tensor:
        """See ``Discrete.log_prob``."""
        upper, lower, width = self._standardize(value, self.loc, self.log_scale)
        # The bin is mirrored into the left half, where the logarithm of the normal's cdf is accurate.
        mirrored = upper + lower > 0
        a, b = torch.where(mirrored, -lower, upper), torch.where(mirrored, -upper, lower)
        log_a = log_ndtr(a)
        # The difference of two logarithms loses its digits in a narrow bin, where it is the slope at the
        # middle times the width.
        slope = math.sqrt(2 / math.pi) / torch.special.erfcx((upper + lower).abs() / math.sqrt(8))
        narrow = width < torch.finfo(a.dtype).eps ** (1 / 3)
        inner = log_a + log1mexp(torch.where(narrow, width * slope, log_a - log_ndtr(b)))
        first, last = value == 0, value == self.levels - 1
        return torch.where(first, log_ndtr(upper), torch.where(last, log_ndtr(-lower), inner))
