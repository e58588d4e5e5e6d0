"""What a bijection is, and bijections made of others."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Bijection(nn.Module, ABC):
    """An invertible map of tensors ``(N, *shape)``, with the logarithm of its volume change.

    ``forward`` leads from the data towards noise, ``inverse`` back. Each gives its result, as a new tensor,
    and the log-determinant of its own Jacobian, ``(N,)`` nats. So a density is log p(x) = log p(z) + the
    log-determinant of ``forward``. What a bijection is conditioned on (the features of a class, say) is its
    ``context``, which only conditional ones look at.
    """

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Z and log |det dz/dx|, ``(N,)``."""

    @abstractmethod
    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X and log |det dx/dz|, ``(N,)``."""


class Inverse(Bijection):
    """A bijection the other way round: slow to sample becomes slow to score."""

    def __init__(self, bijection: Bijection) -> None:
        super().__init__()
        self.bijection = bijection

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.forward``."""
        return self.bijection.inverse(x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.inverse``."""
        return self.bijection(z, context)


class Composition(Bijection):
    """Bijections one after another, the first nearest to the data.

    >>> from ancestral.bijections import Permutation
    >>> flow = Composition(Permutation([1, 2, 0]), Permutation([1, 2, 0]))
    >>> flow(torch.tensor([[10.0, 11.0, 12.0]]))
    (tensor([[12., 10., 11.]]), tensor([0.]))
    """

    def __init__(self, *steps: Bijection) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.forward``."""
        total = no_change(x)
        for step in self.steps:
            x, log_det = step(x, context)
            total = total + log_det
        return x, total

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.inverse``."""
        total = no_change(z)
        for step in reversed(list(self.bijections)):
            z, log_det = step.inverse(z, context)
            total = total + log_det
        return z, total

    @property
    def bijections(self) -> Iterable[Bijection]:
        """The steps, in order."""
        for step in self.steps:
            assert isinstance(step, Bijection)
            yield step


def no_change(x: Tensor) -> Tensor:
    """The log-determinant of a map that keeps the volume, ``(N,)`` zeros."""
    return torch.zeros(len(x), device=x.device, dtype=widened(x.dtype))


def widened(dtype: torch.dtype) -> torch.dtype:
    """The dtype that log-determinants of values of ``dtype`` are summed in: at least float32."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def summed(log_det: Tensor) -> Tensor:
    """The sum over all values of an example, ``(N,)``."""
    return log_det.flatten(1).sum(1)


def over_grid(per_channel: Tensor, x: Tensor) -> Tensor:
    """A number of each channel ``(C,)`` as it is multiplied with ``x`` ``(N, C, *grid)``."""
    return per_channel.view(1, -1, *[1] * (x.dim() - 2))


def scaling(log_scale: Tensor, x: Tensor) -> Tensor:
    """The log-determinant ``(N,)`` of multiplying each channel of ``x`` by the exponential of ``(C,)``."""
    return (log_scale.to(widened(x.dtype)).sum() * x[0, 0].numel()).expand(len(x))


def log_normal(z: Tensor) -> Tensor:
    """Log density of each value under a standard normal, in nats."""
    return -0.5 * (z.square() + math.log(2 * math.pi))
