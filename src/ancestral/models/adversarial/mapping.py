"""What both StyleGANs share: latents z to vectors w, their mean, and which layers follow which of them."""

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from ancestral.errors import UserError
from ancestral.models.adversarial.base import given_classes
from ancestral.nn.equalized import RECTIFIED, EqualizedLinear, pixel_normalized
from ancestral.nn.normalization import mean_over_processes

_RATE, _MEAN = 0.01, 0.995
"""The learning rate of the mapping beside that of all else, and the decay of the mean of w."""


class Mapping(nn.Module):
    """z and the class's vector, of a mean square of 1, through dense layers that learn slowly.

    The mean of w follows each batch in training; truncation moves towards it.

    Args:
        latents: numbers of z; 0 for classes alone.
        styles: numbers of w.
        depth: layers.
        classes: 0 for none.
        apart: normalize z and the class's vector each by itself (StyleGAN2-ADA), not together (StyleGAN).
    """

    mean: Tensor

    def __init__(self, latents: int, styles: int, depth: int, classes: int, *, apart: bool = False) -> None:
        super().__init__()
        self.latents, self.classes, self.apart = latents, classes, apart
        width = latents or styles
        self.embedding = None
        if classes and apart:
            self.embedding = EqualizedLinear(classes, width, gain=1.0)
        elif classes:
            self.embedding = EqualizedLinear(classes, width, gain=classes**0.5, bias=None)
        inputs = [latents + (width if classes else 0), *[styles] * (depth - 1)]
        # StyleGAN2 has the gain of rectifiers after them, where it multiplies biases too.
        self.gain = RECTIFIED if apart else 1.0
        gain = RECTIFIED / self.gain
        self.layers = nn.ModuleList(EqualizedLinear(i, styles, rate=_RATE, gain=gain) for i in inputs)
        self.register_buffer("mean", torch.zeros(styles))

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """``(N, latents)`` and classes to w ``(N, styles)``."""
        h = pixel_normalized(z) if self.apart and z.shape[1] else z
        if self.embedding is not None:
            of_class = self.embedding(given_classes(labels, self.classes, z))
            h = torch.cat([h, pixel_normalized(of_class) if self.apart else of_class], 1)
        h = h if self.apart else pixel_normalized(h)
        for layer in self.layers:
            h = self.gain * leaky_relu(layer(h), 0.2)
        return h

    @torch.no_grad()
    def follow(self, w: Tensor) -> None:
        """Let the mean follow the vectors of a batch, of all processes."""
        mean = mean_over_processes(w.detach().to(self.mean.dtype).mean(0))
        self.mean.lerp_(mean, 1 - _MEAN)

    def mixed(self, w: Tensor, labels: Tensor | None, layers: int, probability: float) -> Tensor:
        """Vectors of layers ``(N, layers, styles)`` that follow w up to a random one, then another w.

        The cut, between the first and the last layer, is one for the batch, and there is none but with this
        probability (Karras et al., 2018, section 3.1).
        """
        if layers == 1 or not probability:
            return w.unsqueeze(1).expand(-1, layers, -1)
        other = self(torch.randn(len(w), self.latents, device=w.device, dtype=self.mean.dtype), labels)
        cut = torch.randint(1, layers, (), device=w.device)
        mixes = torch.rand((), device=w.device) < probability
        after = torch.arange(layers, device=w.device) >= cut
        return torch.where((after & mixes).view(1, -1, 1), other.unsqueeze(1), w.unsqueeze(1))

    def spread(
        self, z: Tensor, labels: Tensor | None, layers: int, psi: float | None = None, first: int = 0
    ) -> Tensor:
        """The vectors of each layer ``(N, layers, styles)``: one for all, the first nearer to the mean.

        Args:
            z: ``(N, latents)``.
            labels: classes.
            layers: how many follow.
            psi: how much of the way from the mean is left, from 0 to 1; None for all of it.
            first: how many layers are changed.

        Raises:
            UserError: psi above 1.
        """
        w = self(z, labels).unsqueeze(1).expand(-1, layers, -1)
        if psi is None:
            return w
        if psi > 1:
            problem = f"expected truncation in [0, 1], got {psi:g}"
            raise UserError(problem, "choose 1 for none, .7 as the authors do, 0 for the mean")
        near = torch.lerp(self.mean.to(w.dtype).expand_as(w), w, psi)
        return torch.where(torch.arange(layers, device=w.device).view(1, -1, 1) < first, near, w)


def check_noise(kind: str) -> None:
    """Raise UserError for latents that are not normal: those of a second style are."""
    if kind != "normal":
        raise UserError(f"expected normal latents, got {kind}", "leave --model.noise out")
