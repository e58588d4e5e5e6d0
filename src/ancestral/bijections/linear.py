"""Invertible linear maps of the channels."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d

from ancestral.bijections.base import Bijection, widened
from ancestral.errors import UserError


class Invertible1x1(Bijection):
    """A learned matrix that mixes the channels at each place, from a random rotation on.

    Kingma & Dhariwal, 2018 (https://arxiv.org/abs/1807.03039), section 3.2: W, whose determinant is computed
    anew; or with ``lu`` W = P L (U + diag(s)), equation 10, of which P and the signs of s stay as they are, L
    has ones on its diagonal, and the log-determinant is the sum of log |s|.
    """

    permutation: Tensor
    signs: Tensor

    def __init__(self, channels: int, *, lu: bool = True) -> None:
        super().__init__()
        rotation = torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64))[0]
        self.lu = lu
        dtype = torch.get_default_dtype()
        if not lu:
            self.weight = nn.Parameter(rotation.to(dtype))
            return
        permutation, lower, upper = torch.linalg.lu(rotation)
        self.register_buffer("permutation", permutation.argmax(0))  # W[permutation] = L U
        self.register_buffer("signs", upper.diag().sign().to(dtype))
        self.lower = nn.Parameter(lower.tril(-1).to(dtype))
        self.upper = nn.Parameter(upper.triu(1).to(dtype))
        self.log_scale = nn.Parameter(upper.diag().abs().log().to(dtype))

    def matrix(self) -> Tensor:
        """W, ``(C, C)``: output = W input at each place."""
        if not self.lu:
            return self.weight
        lower, upper = self._factors()
        return (lower @ upper).index_select(0, self.permutation.argsort())

    def _factors(self) -> tuple[Tensor, Tensor]:
        lower = self.lower.tril(-1) + torch.eye(
            len(self.lower), device=self.lower.device, dtype=self.lower.dtype
        )
        return lower, self.upper.triu(1) + torch.diag(self.signs * self.log_scale.exp())

    def log_det(self, x: Tensor) -> Tensor:
        """Of ``x``, ``(N,)``."""
        if self.lu:
            log_det = self.log_scale.to(widened(x.dtype)).sum()
        else:
            log_det = torch.linalg.slogdet(self.weight.double())[1].to(widened(x.dtype))
        return (log_det * x[0, 0].numel()).expand(len(x))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.forward``."""
        return _mix(self.matrix(), x), self.log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.inverse``. Raises UserError for a matrix that has become singular."""
        if self.lu:
            lower, upper = (factor.double() for factor in self._factors())
            rows = torch.eye(len(lower), device=z.device, dtype=torch.float64)[self.permutation]
            half = torch.linalg.solve_triangular(lower, rows, upper=False, unitriangular=True)
            inverse = torch.linalg.solve_triangular(upper, half, upper=True)
        else:
            inverse, info = torch.linalg.inv_ex(self.weight.double())
            if int(info):
                inverse = torch.full_like(inverse, torch.nan)
        if not bool(inverse.isfinite().all()):
            problem = f"expected an invertible matrix of {len(inverse)} channels, got a singular one"
            raise UserError(problem, "train with a smaller learning rate, or with the LU form")
        return _mix(inverse.to(z.dtype), z), -self.log_det(z)


def _mix(matrix: Tensor, x: Tensor) -> Tensor:
    """``matrix`` times the channels of ``(N, C, *grid)`` at each place, not rounded by autocast."""
    with torch.autocast(x.device.type, enabled=False):
        if x.dim() == 2:
            return nn.functional.linear(x, matrix)
        if x.dim() == 4:
            return nn.functional.conv2d(x, matrix[:, :, None, None])
        return conv1d(x.flatten(2), matrix[:, :, None]).view_as(x)


class Scaling(Bijection):
    """z = e^s x, of each channel or column (Dinh et al., 2014, section 3.3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.forward``."""
        return x * self._of(self.log_scale, x).exp(), self.log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.inverse``."""
        return z * self._of(-self.log_scale, z).exp(), -self.log_det(z)

    def _of(self, values: Tensor, x: Tensor) -> Tensor:
        return values.view(1, -1, *[1] * (x.dim() - 2))

    def log_det(self, x: Tensor) -> Tensor:
        """Of ``x``, ``(N,)``."""
        return (self.log_scale.to(widened(x.dtype)).sum() * x[0, 0].numel()).expand(len(x))
