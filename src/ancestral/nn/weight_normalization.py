"""Weight normalization that starts from data (Salimans & Kingma, 2016), https://arxiv.org/abs/1602.07868."""

from collections.abc import Callable, Container
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized


def start_from_data(
    model: nn.Module, run: Callable[[], object], small: Container[nn.Module] = frozenset()
) -> None:
    """Set gains and biases of normalized weights from what passes through ``model`` in ``run``.

    Each layer gives mean 0 and a standard deviation of 1 afterwards (section 3), and of 0.1 those that are to
    start ``small``. What passes is that of all processes.
    """
    layers = [m for m in model.modules() if is_parametrized(m, "weight")]
    handles = [
        layer.register_forward_hook(partial(_standardize, 0.1 if layer in small else 1.0)) for layer in layers
    ]
    run()
    for handle in handles:
        handle.remove()


def _standardize(deviation: float, layer: Any, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Set a layer's gain and bias so that its output has a standard deviation; the output as it is then.

    With a bias it has mean 0 too.
    """
    dims = [0, *range(2, output.dim())]
    wide = output.double()  # the difference below would be noise in float32
    moments = torch.stack([wide.mean(dims), wide.square().mean(dims)])
    if dist.is_available() and dist.is_initialized():  # the batch is that of all processes
        dist.all_reduce(moments)
        moments /= dist.get_world_size()
    found = (moments[1] - moments[0].square()).clamp(min=0).sqrt()
    mean = moments[0].to(output.dtype)
    spread = torch.where(found > 1e-6, deviation / found, 1.0).to(
        output.dtype
    )  # a channel that is the same everywhere keeps its gain
    gain = layer.parametrizations.weight.original0
    gain.mul_(spread.view(gain.shape))
    shape = (1, -1, *[1] * (output.dim() - 2))
    if layer.bias is None:
        return output * spread.view(shape)
    layer.bias.copy_((layer.bias - mean) * spread)
    return (output - mean.view(shape)) * spread.view(shape)
