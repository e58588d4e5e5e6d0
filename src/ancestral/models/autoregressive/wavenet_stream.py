"""Values of a WaveNet one after another in one compiled loop: the stream, without an operator a layer.

The stream of ``Autoregressive`` spends its time on starting some fifty operators a layer. Here whole chunks
of values go through all layers inside one function, which Numba compiles (``wavenet_loop``). The weights are
packed anew for each call. The layers keep rings of what they saw, as in Fast WaveNet (Le Paine et al., 2016,
https://arxiv.org/abs/1611.09482).
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from ancestral.distributions.discretized import min_log_scale
from ancestral.errors import UserError
from ancestral.sampling import PLAIN, Sampling, single

if TYPE_CHECKING:  # they import this file
    from ancestral.models.autoregressive.wavenet import DilatedLayer, WaveNet
    from ancestral.models.autoregressive.wavenet_loop import Draw, Network

_BLOCK = 16
"""Most examples that a layer serves at once: what they keep must fit beside its weights in the cache."""
_OFFSETS = 1 << 24
"""Most numbers that conditions are projected to at once."""
_STEPS = 64
"""Fewest steps between two reports of progress; less work is not worth a call."""


def compiles(model: "WaveNet") -> bool:
    """Whether ``generate`` can run the model here: one channel, float32 or float64, a CPU, Numba."""
    if model.training or model.spec.shape[0] > 1:
        return False
    if model.device.type != "cpu" or model.dtype not in (torch.float32, torch.float64):
        return False
    try:
        import numba  # noqa: F401, PLC0415 - an optional dependency, which takes half a second
    except ImportError:
        return False
    return True


@torch.no_grad()
def generate(
    model: "WaveNet", uniforms: Tensor, condition: Tensor | None = None, options: Sampling = PLAIN, *,
    repeat: int = 1, x: Tensor | None = None, known: Tensor | None = None,
    progress: Callable[[float], None] | None = None,
) -> Tensor:  # fmt: skip
    """The integers that the model's stream draws with the same uniforms, int64 ``(N, 1, T)``.

    They are the same but where rounding decides: sums are taken in another order. The first call on a machine
    waits for the compiler, some seconds.

    Args:
        model: one that ``compiles``.
        uniforms: noise in [0, 1), ``(N, 1, T)``.
        condition: what the layers are conditioned on, ``(N, E, 1, L)``; L of 1 is the same everywhere.
        options: how the conditionals are sharpened.
        repeat: values that share a place of the condition.
        x: known values, integers ``(N, 1, T)``.
        known: which values of ``x`` stay, boolean, broadcast to ``x``; a beginning for instance.
        progress: called with the share of the steps that is done, at most a hundred times.

    Raises:
        UserError: a condition that ends before the values.
    """
    from ancestral.models.autoregressive.wavenet_loop import advance  # noqa: PLC0415 - it imports Numba

    n, _, steps = uniforms.shape
    network, draw = pack(model, steps), _draw(model, options)
    weight, bias = projection(model)
    if condition is None:
        condition = bias.new_empty(n, 0, 1, 1)
    if condition.shape[-1] == 1:
        repeat = max(steps, repeat)
    if condition.shape[-1] * repeat < steps:
        raise UserError(
            f"expected a condition for {steps} values, got one for {condition.shape[-1] * repeat}",
            "repeat it more often, or draw fewer values",
        )
    columns = condition[:, :, 0].movedim(1, -1)  # (N, L, E)
    if x is None or known is None:
        values = np.full((n, steps), -1)
    else:
        values = torch.where(known.expand(n, 1, steps), x.long(), -1)[:, 0].contiguous().numpy()
    noise = uniforms[:, 0].double().contiguous().numpy()
    rings = np.zeros((n, int(network.slots[-1]), network.gates.shape[2]), network.gates.dtype)
    threads = torch.get_num_threads()
    size = min(_BLOCK, math.ceil(n / threads))
    blocks = [slice(i, i + size) for i in range(0, n, size)]
    places = max(1, _OFFSETS // (n * bias.numel()))  # of the condition, at once
    chunk = min(max(_STEPS, math.ceil(steps / 100)), places * repeat)
    first, offsets = -1, np.empty(0)
    with ThreadPoolExecutor(threads, "wavenet") as pool:
        for begin in range(0, steps, chunk):
            end = min(begin + chunk, steps)
            if (end - 1) // repeat > first:
                first = begin // repeat
                here = columns[:, first : (end - 1) // repeat + 1]
                offsets = ((here @ weight).unflatten(-1, bias.shape) + bias).contiguous().numpy()
            tasks = [
                pool.submit(
                    advance, network, rings[block], values[block], noise[block], offsets[block],
                    begin=begin, end=end, repeat=repeat, draw=draw,
                )
                for block in blocks
            ]  # fmt: skip
            for task in tasks:
                task.result()
            if progress and 100 * end // steps > 100 * begin // steps:
                progress(end / steps)
    return torch.from_numpy(values)[:, None]


def _draw(model: "WaveNet", options: Sampling) -> "Draw":
    from ancestral.models.autoregressive.wavenet_loop import Draw  # noqa: PLC0415

    levels = model.spec.discrete_levels
    temperature, top_k, top_p = single(options.temperature), single(options.top_k), single(options.top_p)
    return Draw(
        mixture=model.likelihood_of.kind != "categorical",
        min_log_scale=min_log_scale(levels),
        plain=temperature == 1 and top_k is None and top_p is None,
        temperature=float(temperature),
        top_k=levels if top_k is None else top_k,
        top_p=math.inf if top_p is None else float(top_p),
    )


def projection(model: "WaveNet") -> tuple[Tensor, Tensor]:
    """What a condition adds to the gates of all layers, ``(E, L * 2 G)``, and their bias ``(L, 2 G)``."""
    layers = _layers(model)
    bias = _halved(torch.stack([layer.gates.bias for layer in layers]))
    if not model.condition_width:
        return bias.new_empty(0, bias.numel()), bias
    projections = [layer.condition.project for layer in layers if layer.condition is not None]
    weight = torch.stack([_halved(project.weight[:, :, 0, 0].t()) for project in projections], 1)
    return weight.flatten(1), bias


def pack(model: "WaveNet", steps: int) -> "Network":
    """The weights as they are now, for sequences of ``steps``."""
    from ancestral.models.autoregressive.wavenet_loop import Network  # noqa: PLC0415

    layers, levels = _layers(model), torch.arange(model.spec.discrete_levels)
    width = model.config.width
    first, table = _taps(model.first.effective_weight), model.embedding.table
    skips = model.skips.weight[:, :, 0, 0].t().unflatten(0, (len(layers), -1))  # (L, G, S)
    residual, bias = skips.new_zeros(*skips.shape[:2], width), skips.new_zeros(len(layers), width)
    for i, layer in enumerate(layers):
        if layer.residual is not None:
            residual[i], bias[i] = layer.residual.weight[:, :, 0, 0].t(), _bias(layer.residual)
    # What lies before the first value is zero: no ring is longer than the sequence.
    spans = [min(layer.gates.left * layer.gates.dilation, steps) for layer in layers]
    return Network(
        heights=_array(
            model.spec.scale(levels, first.dtype) if table is None else first.new_ones(len(levels))
        ),
        first=_array(first if table is None else table.weight @ first),
        start=_array(torch.cat([model.first.bias, _bias(model.skips)])),
        gates=_array(_halved(torch.stack([_taps(layer.gates.effective_weight) for layer in layers]))),
        outputs=_array(torch.cat([residual, skips], 2) / 2),
        residual_bias=_array(bias),
        merge=_array(model.merge.weight[:, :, 0, 0].t()),
        merge_bias=_array(_bias(model.merge)),
        head=_array(model.head.output.weight[:, :, 0, 0].t()),
        head_bias=_array(model.head.output.bias),
        dilations=np.array([layer.gates.dilation for layer in layers]),
        slots=np.cumsum([0, *spans]),
    )


def _layers(model: "WaveNet") -> "list[DilatedLayer]":
    return cast("list[DilatedLayer]", list(model.layers))


def _taps(weight: Tensor) -> Tensor:
    """``(out, in, 1, K)``, the oldest first, as ``(K, in, out)``, the newest first."""
    return weight[:, :, 0].flip(-1).permute(2, 1, 0)


def _halved(gates: Tensor) -> Tensor:
    """The second half of the last dimension, the argument of the sigmoid, halved."""
    a, b = gates.chunk(2, -1)
    return torch.cat([a, b / 2], -1)


def _bias(layer: torch.nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def _array(x: Tensor) -> np.ndarray:
    return x.detach().contiguous().numpy()
