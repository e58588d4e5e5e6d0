"""What is done to values before a flow sees them, with its log-determinant."""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from ancestral.bijections.base import Bijection, summed, widened


class Rescale(Bijection):
    """z = (x - shift) / scale, by constants."""

    def __init__(self, shift: float, scale: float) -> None:
        super().__init__()
        self.shift, self.scale = shift, scale

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"shift={self.shift}, scale={self.scale}"

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.forward``."""
        return (x - self.shift) / self.scale, self._log_det(x, -math.log(abs(self.scale)))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.inverse``."""
        return z * self.scale + self.shift, self._log_det(z, math.log(abs(self.scale)))

    def _log_det(self, x: Tensor, per_value: float) -> Tensor:
        return torch.full((len(x),), per_value * x[0].numel(), dtype=widened(x.dtype), device=x.device)


class Logit(Bijection):
    """z = logit(a + (1 - 2a) x) of x in [0, 1], so that a flow's values have no bounds.

    Dinh et al., 2016 (https://arxiv.org/abs/1605.08803), section 4.1, with a = .05. Its inverse is the exact
    one: what is drawn beyond [0, 1] lies beyond it, by up to a / (1 - 2a).
    """

    def __init__(self, alpha: float = 0.05) -> None:
        super().__init__()
        self.alpha = alpha

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"alpha={self.alpha}"

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.forward``."""
        y = self.alpha + (1 - 2 * self.alpha) * x
        z = y.log() - (-y).log1p()
        return z, summed(softplus(z) + softplus(-z) + math.log(1 - 2 * self.alpha))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.inverse``."""
        x = (torch.sigmoid(z) - self.alpha) / (1 - 2 * self.alpha)
        return x, summed(logsigmoid(z) + logsigmoid(-z) - math.log(1 - 2 * self.alpha))
