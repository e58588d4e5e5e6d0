"""Batch normalization over the batch of all processes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class BatchNorm(nn.BatchNorm1d):
    """Batch normalization (Ioffe & Szegedy, 2015, arXiv 1502.03167) of ``(N, C, *grid)``, synchronized.

    In training, means and variances are those of the batch of all processes, on any device
    (torch.nn.SyncBatchNorm is for GPUs alone), so that two processes with half a batch each compute what one
    does with the whole.

    >>> BatchNorm(1)(torch.tensor([[1.0], [3.0]])).flatten().tolist()
    [-0.9999949932098389, 0.9999949932098389]
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each channel."""
        if not (self.training and world_size() > 1):
            return super().forward(x)
        dims = [0, *range(2, x.dim())]
        count = float(x.numel() // x.shape[1] * dist.get_world_size())
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        mean = _AllReduce.apply(wide.sum(dims)) / count
        shape = (1, -1, *[1] * (x.dim() - 2))
        centered = wide - mean.view(shape)
        variance = _AllReduce.apply(centered.square().sum(dims)) / count
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(variance * (count / max(count - 1, 1)), share)
        y = centered * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (N, C, ...), got {input.dim()} dimensions")


@contextmanager
def standing_statistics(module: nn.Module) -> Iterator[None]:
    """Inside, batch norms take their statistics anew: the plain means over all batches that pass.

    Brock et al., 2018 (https://arxiv.org/abs/1809.11096, appendix). The moving averages of training are of
    weights that are gone by then, above all where the weights are averages themselves. The module is in
    training mode inside, and as it was afterwards.

    >>> norm = BatchNorm(1)
    >>> with standing_statistics(norm):
    ...     _ = [norm(torch.tensor([[a], [a + 2.0]])) for a in (1.0, 5.0)]
    >>> norm.running_mean.item(), norm.running_var.item()
    (4.0, 2.0)
    """
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    momenta, modes = [norm.momentum for norm in norms], [(m, m.training) for m in module.modules()]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    module.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for m, training in modes:
            m.training = training


def moments(x: Tensor, left_out: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, biased variance and number of the values of each channel, ``(C,)``.

    Over the batch of all processes, with gradients, and in at least float32.

    >>> moments(torch.tensor([[1.0], [3.0]]))
    (tensor([2.]), tensor([1.]), tensor([2.]))

    Args:
        x: ``(N, C, *grid)``.
        left_out: booleans that broadcast to an example, true for values that do not count.
    """
    dims = [0, *range(2, x.dim())]
    wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    counted = torch.ones_like(wide) if left_out is None else (~left_out).to(wide.dtype).expand_as(wide)
    count = _over_processes(counted.sum(dims)).clamp(min=1)
    mean = _over_processes((wide * counted).sum(dims)) / count
    centered = (wide - mean.view(1, -1, *[1] * (x.dim() - 2))) * counted
    return mean, _over_processes(centered.square().sum(dims)) / count, count.detach()


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_over_processes(x: Tensor) -> Tensor:
    """The mean of ``x`` over all processes, with gradients for each of them."""
    return _over_processes(x) / world_size()


def _over_processes(x: Tensor) -> Tensor:
    if world_size() == 1:
        return x
    total: Tensor = _AllReduce.apply(x)
    return total


class _AllReduce(torch.autograd.Function):
    """The sum over all processes; the gradient of a sum is the sum of the gradients."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:
        total: Tensor = _AllReduce.apply(gradients[0])  # which can be differentiated again
        return total


def gathered_rows(x: Tensor) -> tuple[Tensor, int]:
    """The rows of all processes, with gradients, and where this one's begin; each has as many.

    >>> rows, first = gathered_rows(torch.ones(2, 1))
    >>> rows.shape, first
    (torch.Size([2, 1]), 0)
    """
    if world_size() == 1:
        return x, 0
    first = dist.get_rank() * len(x)
    after = (dist.get_world_size() - dist.get_rank() - 1) * len(x)
    parts = [x.new_zeros(first, *x.shape[1:]), x, x.new_zeros(after, *x.shape[1:])]
    return _over_processes(torch.cat(parts)), first


class ConditionalBatchNorm(nn.Module):
    """Batch normalization whose gains and biases are those of an example's class, 1 and 0 at first.

    Dumoulin et al., 2016 (https://arxiv.org/abs/1610.07629). Without classes it is plain. Statistics are
    those of ``BatchNorm``: of the batch of all processes in training, running ones else.

    Args:
        channels: of ``x``.
        classes: 0 for none.
    """

    def __init__(self, channels: int, classes: int = 0) -> None:
        super().__init__()
        self.norm = BatchNorm(channels, affine=False)
        self.gain = nn.Parameter(torch.ones(max(1, classes), channels))
        self.bias = nn.Parameter(torch.zeros(max(1, classes), channels))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, channels, *grid)`` and classes ``(N,)``, or shares of them, to the same shape."""
        if labels is None:
            labels = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        shape = (len(x), -1, *[1] * (x.dim() - 2))
        gain, bias = (
            labels.to(table.dtype) @ table if labels.is_floating_point() else table[labels]
            for table in (self.gain, self.bias)
        )
        y = self.norm(x) * gain.view(shape) + bias.view(shape)
        return y.to(x.dtype)
