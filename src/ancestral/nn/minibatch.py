"""Minibatch discrimination (Salimans et al., 2016), https://arxiv.org/abs/1606.03498, section 3.2."""

import torch
from torch import Tensor, nn

from ancestral.nn.normalization import gathered_rows


class MinibatchDiscrimination(nn.Module):
    r"""Features of an example that say how near the others of its batch are.

    :math:`o_b(x_i) = \sum_{j \ne i} e^{-\lVert M_{ib} - M_{jb} \rVert_1} + \beta_b` with :math:`M_i = f(x_i)
    T`; columns of T have norm e^s, s learned, and the biases start at -1 (the authors' code). The batch is
    that of all processes in training.

    Args:
        inputs: features f of an example.
        kernels: features b that come out.
        dims: numbers that each kernel compares.
    """

    def __init__(self, inputs: int, kernels: int = 100, dims: int = 5) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.05 * torch.randn(inputs, kernels, dims))
        self.log_scale = nn.Parameter(torch.zeros(kernels, dims))
        self.bias = nn.Parameter(torch.full((kernels,), -1.0))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inputs)`` to ``(N, kernels)``."""
        scale = self.log_scale.exp() / self.weight.norm(dim=0).clamp(min=1e-12)
        m = torch.einsum("ni,ikd->nkd", x, self.weight * scale)
        m = m.float() if m.dtype in (torch.bfloat16, torch.float16) else m
        # One process evaluates alone.
        everyone, first = gathered_rows(m) if self.training else (m, 0)
        distance = (m.unsqueeze(1) - everyone.unsqueeze(0)).abs().sum(3)  # (N, M, kernels)
        itself = torch.arange(len(m), device=m.device) + first
        near = (-distance).exp().scatter(1, itself.view(-1, 1, 1).expand(-1, 1, distance.shape[2]), 0.0)
        return near.sum(1) + self.bias


class MinibatchDeviation(nn.Module):
    """A map that says how much examples vary, after the others (Karras et al., 2017, section 3).

    Examples i, i + M, i + 2 M, ... are a group, of at most ``group``, the most that divide the batch: the
    standard deviation over a group, averaged over all channels and places, is the same for all of it. The
    batch is that of all processes in training.

    >>> MinibatchDeviation()(torch.tensor([0.0, 2.0]).view(2, 1, 1, 1)).flatten(1)
    tensor([[0., 1.],
            [2., 1.]])
    """

    def __init__(self, group: int = 4) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C + 1, H, W)``."""
        everyone, first = gathered_rows(x) if self.training else (x, 0)
        n = len(everyone)
        size = next(size for size in range(min(self.group, n), 0, -1) if n % size == 0)
        groups = everyone.unflatten(0, (size, n // size))
        groups = groups.float() if x.dtype in (torch.bfloat16, torch.float16) else groups
        variance = (groups - groups.mean(0)).square().mean(0)
        deviation = (variance + 1e-8).sqrt().mean((1, 2, 3)).to(x.dtype)  # (M,)
        own = deviation.repeat(size)[first : first + len(x)].view(-1, 1, 1, 1)
        return torch.cat([x, own.expand(-1, 1, *x.shape[2:])], 1)
