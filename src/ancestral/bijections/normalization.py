"""Normalization as a bijection: with weights that start from data, and by the statistics of batches."""

import torch
from torch import Tensor, nn

from ancestral.bijections.base import Bijection, over_grid, scaling, widened
from ancestral.errors import UserError
from ancestral.nn.normalization import moments


class ActNorm(Bijection):
    """z = (x + b) e^s, of each channel, which starts with mean 0 and variance 1 on the first batch.

    Kingma & Dhariwal, 2018 (https://arxiv.org/abs/1807.03039), section 3.1. The batch is that of all
    processes. It starts in the first forward pass in training mode, or by ``start``. A channel that is
    constant in that batch is shifted alone.

    Args:
        channels: of ``x``.
        speed: s is this times its parameter, which so learns faster (3 in the authors' code).
    """

    started: Tensor

    def __init__(self, channels: int, *, speed: float = 1.0) -> None:
        super().__init__()
        self.speed = speed
        self.shift = nn.Parameter(torch.zeros(channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.register_buffer("started", torch.tensor(False))
        self._known_started = False

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.forward``."""
        self.start(x)
        z = (x + over_grid(self.shift, x)) * over_grid(self.scale, x)
        return z.to(x.dtype), self.log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.inverse``."""
        x = z * over_grid((-self.speed * self.log_scale).exp(), z) - over_grid(self.shift, z)
        return x.to(z.dtype), -self.log_det(z)

    def log_det(self, x: Tensor) -> Tensor:
        """Of ``x``, ``(N,)``."""
        return scaling(self.speed * self.log_scale, x)

    @property
    def scale(self) -> Tensor:
        """e^s, ``(C,)``."""
        return (self.speed * self.log_scale).exp()

    @property
    def is_started(self) -> bool:
        """Whether it has started; reads the device until it has, never after."""
        self._known_started = self._known_started or bool(self.started)
        return self._known_started

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """Start from ``x``, in training mode and once."""
        if not self.training or self.is_started:
            return
        mean, variance, _ = moments(x)
        if not (mean.isfinite() & variance.isfinite()).all():  # the same on all processes
            return
        self.shift.copy_(-mean)
        # What varies by no more than the mean is rounded by is constant.
        varies = variance > 1e-10 * mean.square() + 1e-12
        log_scale = torch.where(varies, -0.5 * variance.clamp(min=1e-12).log(), 0.0)
        self.log_scale.copy_(log_scale / self.speed)
        self.started.fill_(True)
        self._known_started = True

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        # Now, not in the first step, whose graph would be another one than without the loading.
        self._known_started = bool(self.started)


class BatchNormalization(Bijection):
    """Batch normalization (Dinh et al., 2016, section 3.7; Papamakarios et al., 2017, section 3.3).

    Of each channel: z = (x - m) / sqrt(v + eps) e^g + b. In training m and v are those of the batch of all
    processes, with gradients; else running means, so that an example's density does not depend on others.
    ``mask`` leaves places out: true where nothing changes (the part of a coupling that stays).

    Args:
        channels: of ``x``.
        learned: whether g and b are.
        momentum: share of the running statistics that a batch makes new.
        eps: added to the variance.
        mask: booleans that broadcast to an example.
    """

    mean: Tensor
    variance: Tensor
    mask: Tensor | None

    def __init__(
        self, channels: int, *, learned: bool = True, momentum: float = 0.1, eps: float = 1e-5,
        mask: Tensor | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.log_gain = nn.Parameter(torch.zeros(channels)) if learned else None
        self.bias = nn.Parameter(torch.zeros(channels)) if learned else None
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.register_buffer("mask", None if mask is None else mask.bool(), persistent=False)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.forward``."""
        if not self.training:
            return self._scaled(x, self.mean, self.variance)
        mean, variance, count = moments(x, self.mask)
        with torch.no_grad():
            self.mean.lerp_(mean, self.momentum)
            self.variance.lerp_(variance * (count / (count - 1).clamp(min=1)), self.momentum)
        return self._scaled(x, mean, variance)

    def _scaled(self, x: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        log_scale = -0.5 * (variance + self.eps).log()
        if self.log_gain is not None:
            log_scale = log_scale + self.log_gain
        z = (x - over_grid(mean, x)) * over_grid(log_scale.exp(), x)
        if self.bias is not None:
            z = z + over_grid(self.bias, x)
        return self._unmasked(x, z, log_scale)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.inverse``. By the running statistics; raises UserError in training mode."""
        if self.training:
            problem = "expected batch normalization in evaluation mode to invert it, got training mode"
            raise UserError(problem, "call eval(): a batch has no statistics before it is there")
        log_scale = -0.5 * (self.variance + self.eps).log()
        if self.log_gain is not None:
            log_scale = log_scale + self.log_gain
        shifted = z if self.bias is None else z - over_grid(self.bias, z)
        x = shifted * over_grid((-log_scale).exp(), z) + over_grid(self.mean, z)
        return self._unmasked(z, x, -log_scale)

    def _unmasked(self, before: Tensor, after: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        if self.mask is None:
            return after.to(before.dtype), scaling(log_scale, before)
        changed = torch.where(self.mask, before, after.to(before.dtype))
        places = (~self.mask).expand(before.shape[1:]).flatten(1).sum(1)
        return changed, (log_scale.to(widened(before.dtype)) * places).sum().expand(len(before))
