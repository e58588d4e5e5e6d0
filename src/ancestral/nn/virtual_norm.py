"""Virtual batch normalization (Salimans et al., 2016), https://arxiv.org/abs/1606.03498, section 3.5."""

import torch
from torch import Tensor, nn


class VirtualBatchNorm(nn.Module):
    """Normalization of an example by its own statistics and those of a fixed reference batch.

    Mean and mean square of a channel are 1/(B + 1) of the example's own and B/(B + 1) of the B reference
    examples', which are normalized by their own alone (the authors' code); so an example depends on no other
    of its batch. A forward pass is given the reference batch first and the examples after it.

    Args:
        channels: of ``x``.
        reference: examples of the reference batch.
        eps: added to the variance.
    """

    def __init__(self, channels: int, reference: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.reference, self.eps = reference, eps
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``(reference + N, channels, *grid)`` to the same shape."""
        b = self.reference
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        flat = wide.flatten(2) if wide.dim() > 2 else wide.unsqueeze(2)
        mean, square = flat.mean(2, keepdim=True), flat.square().mean(2, keepdim=True)
        fixed_mean, fixed_square = mean[:b].mean(0, keepdim=True), square[:b].mean(0, keepdim=True)
        own = 1 / (b + 1)
        means = torch.cat([fixed_mean.expand(b, -1, -1), torch.lerp(fixed_mean, mean[b:], own)])
        squares = torch.cat([fixed_square.expand(b, -1, -1), torch.lerp(fixed_square, square[b:], own)])
        variance = (squares - means.square()).clamp(min=0)
        y = (flat - means) * (variance + self.eps).rsqrt()
        y = y * self.gain.view(1, -1, 1) + self.bias.view(1, -1, 1)
        return y.view_as(wide).to(x.dtype)
