"""Invertible linear maps of the channels."""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ancestral.bijections.base import Bijection, over_grid, scaling, widened


class Invertible1x1(Bijection):
    """A learned matrix that mixes the channels at each place, from a random rotation on.

    Kingma & Dhariwal, 2018 (https://arxiv.org/abs/1807.03039), section 3.2: W, whose determinant is computed
    anew; or with ``lu`` W = P L (U + diag(s)), equation 10, of which P and the signs of s stay as they are, L
    has ones on its diagonal, and the log-determinant is the sum of log |s|.
    """

    permutation: Tensor
    order: Tensor
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
        self.register_buffer("order", self.permutation.argsort())
        self.register_buffer("signs", upper.diag().sign().to(dtype))
        self.lower = nn.Parameter(lower.tril(-1).to(dtype))
        self.upper = nn.Parameter(upper.triu(1).to(dtype))
        self.log_scale = nn.Parameter(upper.diag().abs().log().to(dtype))

    def matrix(self) -> Tensor:
        """W, ``(C, C)``: output = W input at each place. Autocast does not round it: the inverse is exact."""
        if not self.lu:
            return self.weight
        with torch.autocast(self.lower.device.type, enabled=False):
            lower, upper = self._factors()
            return (lower @ upper).index_select(0, self.order)

    def _factors(self) -> tuple[Tensor, Tensor]:
        ones = torch.eye(len(self.lower), device=self.lower.device, dtype=self.lower.dtype)
        return self.lower.tril(-1) + ones, self.upper.triu(1) + torch.diag(self.signs * self.log_scale.exp())

    def log_det(self, x: Tensor) -> Tensor:
        """Of ``x``, ``(N,)``."""
        if self.lu:
            return scaling(self.log_scale, x)
        log_det = torch.linalg.slogdet(self.weight.double())[1].to(widened(x.dtype))
        return (log_det * x[0, 0].numel()).expand(len(x))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.forward``."""
        return mix(self.matrix(), x), self.log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.inverse``. Of a singular matrix (see ``is_singular``) the result is not finite."""
        with torch.autocast(z.device.type, enabled=False):
            if self.lu:
                lower, upper = (factor.double() for factor in self._factors())
                rows = torch.eye(len(lower), device=z.device, dtype=torch.float64)[self.permutation]
                half = torch.linalg.solve_triangular(lower, rows, upper=False, unitriangular=True)
                inverse = torch.linalg.solve_triangular(upper, half, upper=True)
            else:
                inverse, info = torch.linalg.inv_ex(self.weight.double())
                inverse = torch.where(info == 0, inverse, torch.nan)
        return mix(inverse.to(z.dtype), z), -self.log_det(z)

    @property
    def is_singular(self) -> bool:
        """Whether the matrix has no inverse that floats could hold; waits for the device."""
        with torch.no_grad():
            log_det = torch.linalg.slogdet(self.matrix().double())[1]
        return not bool(log_det.isfinite())


def mix(matrix: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """``matrix`` times the channels of ``(N, C, *grid)`` at each place, plus ``bias`` ``(C,)``.

    A product and no convolution, which GPUs would round to TF32; nor does autocast round it.
    """
    with torch.autocast(x.device.type, enabled=False):
        return linear(x.movedim(1, -1), matrix, bias).movedim(-1, 1)


class Scaling(Bijection):
    """z = e^s x, of each channel or column (Dinh et al., 2014, section 3.3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.forward``."""
        return x * over_grid(self.log_scale.exp(), x), scaling(self.log_scale, x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.inverse``."""
        return z * over_grid((-self.log_scale).exp(), z), -scaling(self.log_scale, z)
