"""Integers as real numbers, so that a flow can model them: noise u in [0, 1) is added to each value.

p(x) = E_q p(x + u) / q(u | x) >= exp E_q log p(x + u) - log q(u | x), q the density of the noise: a flow on
integers has a lower bound of their likelihood (Theis et al., 2015, https://arxiv.org/abs/1511.01844; Ho et
al., Flow++, 2019, https://arxiv.org/abs/1902.00275, section 3.1).
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from ancestral.bijections.base import Bijection, log_normal, summed
from ancestral.spec import Spec


class Dequantization(nn.Module, ABC):
    """A distribution of noise, given integers."""

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise u in [0, 1) for integers, as floats ``(N, *shape)``, and log q(u | x), ``(N,)`` nats."""


class Uniform(Dequantization):
    """Noise that says nothing: q = 1."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Dequantization.forward``."""
        return torch.rand_like(x), x.new_zeros(len(x))


class Variational(Dequantization):
    """Noise u = sigmoid(flow(e; x)), e standard normal: the flow learns which noise the data's model likes.

    Args:
        spec: of the integers.
        flow: from noise e to logit(u), given the features of x.
        features: the integers in [-1, 1] to features of the flow's context.
    """

    def __init__(self, spec: Spec, flow: Bijection, features: nn.Module) -> None:
        super().__init__()
        self.spec, self.flow, self.features = spec, flow, features

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Dequantization.forward``."""
        scaled = self.spec.scale(x)
        e = torch.randn_like(scaled)
        logit, log_det = self.flow(e, self.features(scaled))
        log_base = summed(log_normal(e))
        log_slope = summed(nn.functional.logsigmoid(logit) + nn.functional.logsigmoid(-logit))
        return torch.sigmoid(logit), log_base - log_det - log_slope
