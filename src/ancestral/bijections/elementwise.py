"""Increasing functions of single values, whose parameters a network gives: what couplings are made of."""

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ancestral.bijections.base import widened
from ancestral.distributions.discretized import log_ndtr, ndtri_exp
from ancestral.errors import UserError


class Elementwise(ABC):
    """An increasing function of each value of ``(N, C, *grid)``, with ``parameters`` numbers for each.

    These come as ``(N, parameters * C, *grid)``: the first parameter of all channels, then the second, … All
    zeros are near the identity, for mixtures around 0. Both directions give the result and the log-derivative
    of their own, of the shape of ``x``.
    """

    parameters: int

    @abstractmethod
    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Z and log dz/dx."""

    @abstractmethod
    def inverse(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """X and log dx/dz."""

    def _split(self, parameters: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        """The parameters one by one, each of the shape of ``x``."""
        return self._checked(parameters, x).chunk(self.parameters, 1)

    def _checked(self, parameters: Tensor, x: Tensor) -> Tensor:
        """The parameters in at least float32. Raises UserError for another number than x's channels take."""
        if parameters.shape[1] != self.parameters * x.shape[1]:
            problem = f"expected {self.parameters} parameters for each of {x.shape[1]} channels that change"
            raise UserError(
                f"{problem}, got {parameters.shape[1]}",
                f"let the network have {self.parameters * x.shape[1]} outputs",
            )
        return parameters.to(widened(x.dtype))


class Additive(Elementwise):
    """z = x + t (Dinh et al., 2014, https://arxiv.org/abs/1410.8516, section 3.2)."""

    parameters = 1

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Elementwise.forward``."""
        (shift,) = self._split(parameters, x)
        return x + shift, torch.zeros_like(shift)

    def inverse(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Elementwise.inverse``."""
        (shift,) = self._split(parameters, z)
        return z - shift, torch.zeros_like(shift)


class Affine(Elementwise):
    """z = (x + t) s.

    ``scale`` says what s is of its parameter a: ``exp`` e^a, without bounds (Papamakarios et al., 2017,
    https://arxiv.org/abs/1705.07057, equation 4); ``tanh`` exp(bound tanh(a / bound)), within e^-bound and
    e^bound; ``sigmoid`` sigmoid(a + 2), at most 1 and .88 for a = 0 (the code of Kingma & Dhariwal, 2018).
    """

    parameters = 2

    def __init__(self, scale: Literal["exp", "tanh", "sigmoid"] = "tanh", bound: float = 2.0) -> None:
        self.scale, self.bound = scale, bound

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Elementwise.forward``."""
        shift, log_scale = self._given(parameters, x)
        return (x + shift) * log_scale.exp(), log_scale

    def inverse(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Elementwise.inverse``."""
        shift, log_scale = self._given(parameters, z)
        return z * (-log_scale).exp() - shift, -log_scale

    def _given(self, parameters: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        shift, a = self._split(parameters, x)
        if self.scale == "tanh":
            return shift, self.bound * torch.tanh(a / self.bound)
        return shift, a if self.scale == "exp" else logsigmoid(a + 2)


class _MixtureCDF(Elementwise):
    """A cumulative distribution of a mixture of K components, through the quantile function of one."""

    components: int

    @abstractmethod
    def _forward(self, x: Tensor, mixture: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The quantile of F(x), and the logarithm of its derivative.

        The mixture is log-weights, locations and inverse scales ``(N, K, C, *grid)``.
        """

    def _inverse(self, z: Tensor, mixture: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The x whose quantile is z, and the logarithm of dz/dx: bisection, then a step of Newton's."""
        with torch.no_grad():
            _, loc, inverse_scale = mixture
            # Where the quantile of each component is below z, so is the mixture's; and likewise above.
            each = loc + z.unsqueeze(1) / inverse_scale
            low, high = each.amin(1), each.amax(1)
            for _ in range(30 if z.dtype == torch.float32 else 60):
                middle = (low + high) / 2
                below = self._forward(middle, mixture)[0] < z
                low, high = torch.where(below, middle, low), torch.where(below, high, middle)
            middle = (low + high) / 2
        # The step carries the gradient: that of an implicit function.
        quantile, log_slope = self._forward(middle, mixture)
        x = middle - (quantile - z) * (-log_slope.detach()).exp()
        x = x + (x.clamp(low, high) - x).detach()
        return x, self._forward(x, mixture)[1]

    def _mixture(self, parameters: Tensor, spread: float) -> tuple[Tensor, Tensor, Tensor]:
        """Locations are spread over [-spread, spread] and scales are 1 / K where the parameters are 0."""
        logits, loc, log_scale = parameters.unflatten(1, (3, self.components, -1)).unbind(1)
        places = torch.linspace(-spread, spread, self.components, device=loc.device, dtype=loc.dtype)
        loc = loc + places.view(-1, *[1] * (loc.dim() - 2))
        narrowed = math.log(max(self.components, 2))
        return logits.log_softmax(1), loc, (narrowed - log_scale.clamp(min=-7.0)).exp()


class LogisticMixtureCDF(_MixtureCDF):
    r"""z = e^a logit(F(x)) + t, F the cumulative distribution of a mixture of K logistics.

    Ho et al., Flow++, 2019 (https://arxiv.org/abs/1902.00275), section 3.2. Parameters, in order: t, a, then
    of all components the logits of the weights, the locations and the log-scales. Locations are spread over
    [-spread, spread] for parameters of zero.
    """

    def __init__(self, components: int = 8, *, bound: float = 1.5, spread: float = 1.0) -> None:
        self.components, self.bound, self.spread = components, bound, spread
        self.parameters = 2 + 3 * components

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Elementwise.forward``."""
        shift, log_scale, mixture = self._given(parameters, x)
        logit, log_slope = self._forward(x.to(shift.dtype), mixture)
        return logit * log_scale.exp() + shift, log_slope + log_scale

    def inverse(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Elementwise.inverse``."""
        shift, log_scale, mixture = self._given(parameters, z)
        x, log_slope = self._inverse((z - shift) * (-log_scale).exp(), mixture)
        return x, -log_slope - log_scale

    def _given(self, parameters: Tensor, x: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Shift, log-scale and mixture."""
        c = x.shape[1]
        shift, a, rest = self._checked(parameters, x).split([c, c, 3 * self.components * c], 1)
        return shift, self.bound * torch.tanh(a / self.bound), self._mixture(rest, self.spread)

    def _forward(self, x: Tensor, mixture: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        # By the logarithms of both tails: log(1 - exp(log F)) loses the upper one.
        log_weights, loc, inverse_scale = mixture
        centered = (x.unsqueeze(1) - loc) * inverse_scale
        below = log_weights + logsigmoid(centered)
        log_cdf, log_survival = torch.logsumexp(below, 1), torch.logsumexp(below - centered, 1)
        log_density = torch.logsumexp(below + logsigmoid(-centered) + inverse_scale.log(), 1)
        return log_cdf - log_survival, log_density - log_cdf - log_survival


class NormalMixtureCDF(_MixtureCDF):
    r"""z = :math:`\Phi^{-1}(F(x))`, F the cumulative distribution of a mixture of K Gaussians.

    Under a standard normal z, x has that mixture for its density. Parameters, in order: of all components the
    logits of the weights, the locations and the log-scales.
    """

    def __init__(self, components: int = 10, *, spread: float = 2.0) -> None:
        self.components, self.spread = components, spread
        self.parameters = 3 * components

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Elementwise.forward``."""
        parameters = self._checked(parameters, x)
        return self._forward(x.to(parameters.dtype), self._mixture(parameters, self.spread))

    def inverse(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Elementwise.inverse``."""
        parameters = self._checked(parameters, z)
        x, log_slope = self._inverse(z.to(parameters.dtype), self._mixture(parameters, self.spread))
        return x, -log_slope

    def _forward(self, x: Tensor, mixture: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        log_weights, loc, inverse_scale = mixture
        centered = (x.unsqueeze(1) - loc) * inverse_scale
        log_cdf = torch.logsumexp(log_weights + log_ndtr(centered), 1)
        log_survival = torch.logsumexp(log_weights + log_ndtr(-centered), 1)
        log_density = torch.logsumexp(log_weights + inverse_scale.log() - centered.square() / 2, 1)
        # The smaller tail is the one that has digits.
        z = ndtri_exp(torch.where(log_cdf < log_survival, log_cdf, log_survival))
        z = torch.where(log_cdf < log_survival, z, -z)
        return z, log_density + z.square() / 2
