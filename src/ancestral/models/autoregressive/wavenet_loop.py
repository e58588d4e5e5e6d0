"""The loop of ``wavenet_stream``, which Numba compiles: all layers of a WaveNet, one value after another.

Importing this file imports Numba. A product adds four inputs at a time to all outputs, which compiles to
vectors, and a layer serves all examples before the next one's weights replace its own in the cache. Plain
loops instead of array expressions keep the compiler quick.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numba import njit, types
from numba.extending import overload

Array = np.ndarray[Any, Any]

_OPTIONS: dict[str, Any] = {
    # Sums may be taken in any order, for vectors; infinities and NaN stay what they are.
    "fastmath": {"reassoc", "contract", "nsz"},
    "error_model": "numpy",
    "nogil": True,
}
F = TypeVar("F", bound=Callable[..., Any])


def _part(function: F) -> F:
    return cast(F, njit(**_OPTIONS | {"no_cpython_wrapper": True})(function))


class Network(NamedTuple):
    """A WaveNet's weights, inputs first: L layers of R residual, G gate and S skip channels, kernel K.

    The sigmoid is (1 + tanh(b / 2)) / 2: the half inside is in the weights of the gates' second half, the
    half outside in those of ``outputs``.
    """

    heights: Array
    """What a level's vector in ``first`` is multiplied by, ``(levels,)``."""
    first: Array
    """What the value 1 + k steps before adds, ``(K, levels, R)``, or ``(K, 1, R)`` times its height."""
    start: Array
    """The biases of the residual before all layers and of all skip connections, ``(R + S,)``."""
    gates: Array
    """Of the features k dilations before, ``(L, K, R, 2 G)``."""
    outputs: Array
    """To the residual and the skip connection, ``(L, G, R + S)``."""
    residual_bias: Array
    """``(L, R)``."""
    merge: Array
    """``(S, S)``."""
    merge_bias: Array
    """``(S,)``."""
    head: Array
    """``(S, channels)``."""
    head_bias: Array
    """``(channels,)``."""
    dilations: Array
    """``(L,)``."""
    slots: Array
    """Where each layer's ring begins, and the end of the last one, ``(L + 1,)``."""


class Draw(NamedTuple):
    """How a value is drawn from what the network puts out."""

    mixture: bool
    """Whether that is a mixture of logistics (weights, locations, log-scales) rather than logits."""
    min_log_scale: float
    plain: bool
    """Whether the distribution stays as it is."""
    temperature: float
    top_k: int
    """As many as there are levels for no limit."""
    top_p: float
    """Infinity for no limit."""


def _tanh(x: Any) -> Any:
    return np.tanh(x)


@overload(_tanh)
def _tanh_of(x: Any) -> Any:
    if x != types.float32:

        def exact(x: Any) -> Any:
            return math.tanh(x)

        return exact

    def rational(x: Any) -> Any:
        # As Eigen's: within 4e-7 of tanh, and made of operations on vectors alone.
        x = min(max(x, np.float32(-7.9053111)), np.float32(7.9053111))
        y = x * x
        p = np.float32(-2.76076847742355e-16)
        p = p * y + np.float32(2.00018790482477e-13)
        p = p * y + np.float32(-8.60467152213735e-11)
        p = p * y + np.float32(5.12229709037114e-08)
        p = p * y + np.float32(1.48572235717979e-05)
        p = p * y + np.float32(6.37261928875436e-04)
        p = p * y + np.float32(4.89352455891786e-03)
        q = np.float32(1.19825839466702e-06)
        q = q * y + np.float32(1.18534705686654e-04)
        q = q * y + np.float32(2.26843463243900e-03)
        q = q * y + np.float32(4.89352518554385e-03)
        return x * p / q

    return rational


@_part
def _add_product(out: Array, x: Array, weight: Array) -> None:
    """Add ``x`` ``(I,)`` times ``weight`` ``(I, J)`` to ``out`` ``(J,)``."""
    inputs, outputs = weight.shape
    blocks = inputs // 4
    for block in range(blocks):
        i = 4 * block
        x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
        w0, w1, w2, w3 = weight[i], weight[i + 1], weight[i + 2], weight[i + 3]
        for j in range(outputs):
            out[j] += x0 * w0[j] + x1 * w1[j] + x2 * w2[j] + x3 * w3[j]
    for i in range(4 * blocks, inputs):
        x0, w0 = x[i], weight[i]
        for j in range(outputs):
            out[j] += x0 * w0[j]


@_part
def _add_perceptron(out: Array, x: Array, weight: Array, bias: Array, positive: Array) -> None:
    """``out`` becomes ``bias`` plus ReLU(``x``) times ``weight``; ``positive`` is the memory of ReLU(x)."""
    for i in range(len(positive)):
        positive[i] = max(x[i], x.dtype.type(0))
    for j in range(len(out)):
        out[j] = bias[j]
    _add_product(out, positive, weight)


@_part
def _softmax(table: Array, temperature: float) -> None:
    """Unnormalized logarithms become probabilities, sharpened."""
    most = -np.inf
    for level in range(len(table)):
        most = max(most, table[level])
    total = 0.0
    for level in range(len(table)):
        table[level] = math.exp((table[level] - most) / temperature)
        total += table[level]
    for level in range(len(table)):
        table[level] /= total


@_part
def _sift(heap: Array, root: int, size: int, table: Array) -> None:
    """Let a level sink below all that are likelier, or as likely and before it."""
    while 2 * root + 1 < size:
        child = 2 * root + 1
        a, b = heap[child], heap[min(child + 1, size - 1)]
        if table[b] > table[a] or (table[b] == table[a] and b < a):
            child += 1
            a = b
        b = heap[root]
        if table[b] > table[a] or (table[b] == table[a] and b < a):
            return
        heap[root], heap[child] = a, b
        root = child


@_part
def _truncate(table: Array, top_k: int, top_p: float) -> None:
    """The probabilities that ``Discrete.quantile`` leaves out become zero. A heap, as few levels are kept."""
    size = len(table)
    heap = np.arange(size)
    for root in range(size // 2 - 1, -1, -1):
        _sift(heap, root, size, table)
    reached = 0.0
    while size > 0:
        level = heap[0]
        reached += table[level]
        # As there: a level is kept while those before it have not reached p.
        if len(table) - size == top_k or reached - table[level] >= top_p:
            break
        size -= 1
        heap[0] = heap[size]
        _sift(heap, 0, size, table)
    for i in range(size):
        table[heap[i]] = 0.0


@_part
def _invert(table: Array, uniform: float) -> int:
    """Where the cumulative distribution passes ``uniform``, no further than the largest possible level."""
    total = 0.0
    last = 0
    for level in range(len(table)):
        total += table[level]
        if table[level] > 0:
            last = level
    threshold = uniform * total
    reached = 0.0
    for level in range(last):
        reached += table[level]
        if not reached <= threshold:
            return level
    return last


@_part
def _components(output: Array, min_log_scale: float) -> Array:
    """Weights, locations and inverse scales of a mixture, ``(3, K)`` float64."""
    count = len(output) // 3
    found = np.empty((3, count))
    most = -np.inf
    for k in range(count):
        most = max(most, float(output[k]))
    total = 0.0
    for k in range(count):
        found[0, k] = math.exp(output[k] - most)
        total += found[0, k]
        found[1, k] = output[count + k]
        found[2, k] = math.exp(-max(float(output[2 * count + k]), min_log_scale))
    for k in range(count):
        found[0, k] /= total
    return found


@_part
def _log_sigmoid(x: float) -> float:
    return min(x, 0.0) - math.log1p(math.exp(-abs(x)))


@_part
def _mixture_table(components: Array, table: Array) -> None:
    """Log-probabilities of the levels. See ``DiscretizedLogisticMixture.component_log_prob``."""
    count, last = components.shape[1], len(table) - 1
    terms = np.empty(count)
    for level in range(len(table)):
        most = -np.inf
        for k in range(count):
            middle = (level * (2.0 / last) - 1.0 - components[1, k]) * components[2, k]
            half = components[2, k] / last
            terms[k] = math.log(components[0, k])
            if level < last:
                terms[k] += _log_sigmoid(middle + half)
            if level > 0:
                terms[k] += _log_sigmoid(half - middle)
            if 0 < level < last:
                terms[k] += math.log(-math.expm1(-2.0 * half))
            most = max(most, terms[k])
        total = 0.0
        for k in range(count):
            total += math.exp(terms[k] - most)
        table[level] = most + math.log(total)


@_part
def _mixture_quantile(components: Array, levels: int, uniform: float) -> int:
    """See ``DiscretizedLogisticMixture.quantile``."""
    low, high = 0, levels - 1
    while low < high:
        middle = (low + high) // 2
        edge = (2.0 * middle + 1.0) / (levels - 1) - 1.0
        survival = 0.0
        for k in range(components.shape[1]):
            z = (components[1, k] - edge) * components[2, k]
            survival += components[0, k] / (1.0 + math.exp(-z))
        if survival >= 1.0 - uniform:
            low = middle + 1
        else:
            high = middle
    return low


@_part
def _drawn(output: Array, uniform: float, draw: Draw, table: Array) -> int:
    """The integer that ``uniform`` stands for; ``table`` is memory for a number of each level."""
    if draw.mixture:
        components = _components(output, draw.min_log_scale)
        if draw.plain:
            return _mixture_quantile(components, len(table), uniform)
        _mixture_table(components, table)
    else:
        for level in range(len(table)):
            table[level] = output[level]
    _softmax(table, draw.temperature)
    if not draw.plain:
        _truncate(table, draw.top_k, draw.top_p)
    return _invert(table, uniform)


@_part
def _embed(x: Array, network: Network, before: Array) -> None:
    """Of the values before this one ``(t,)``, the residual before all layers and the skip connections."""
    for j in range(len(network.start)):
        x[j] = network.start[j]
    for k in range(min(len(network.first), len(before))):
        level = before[len(before) - 1 - k]
        height, vector = network.heights[level], network.first[k, level % network.first.shape[1]]
        for j in range(len(vector)):
            x[j] += height * vector[j]


def _advance(  # noqa: PLR0917 - Numba takes no keywords
    network: Network, rings: Array, values: Array, uniforms: Array, offsets: Array,
    begin: int, end: int, repeat: int, draw: Draw,
) -> None:  # fmt: skip
    n = len(values)
    layers, kernel, width, double = network.gates.shape
    half, skip = double // 2, len(network.merge)
    dtype = rings.dtype
    state = np.empty((n, width + skip), dtype)  # the residual and the sum of the skip connections
    gates, units = np.empty(double, dtype), np.empty(half, dtype)
    positive, merged = np.empty(skip, dtype), np.empty(skip, dtype)
    output = np.empty(len(network.head_bias), dtype)
    table = np.empty(len(network.heights), np.float64)
    for t in range(begin, end):
        column = t // repeat - begin // repeat
        for e in range(n):
            _embed(state[e], network, values[e, :t])
        for layer in range(layers):
            slot, size = network.slots[layer], network.slots[layer + 1] - network.slots[layer]
            for e in range(n):
                for j in range(double):
                    gates[j] = offsets[e, column, layer, j]
                x, ring = state[e], rings[e, slot : slot + size]
                _add_product(gates, x, network.gates[layer, 0])
                for k in range(1, kernel):
                    before = t - k * network.dilations[layer]
                    if before < 0:
                        break
                    _add_product(gates, ring[before % size], network.gates[layer, k])
                for j in range(width):
                    ring[t % size, j] = x[j]
                    x[j] += network.residual_bias[layer, j]
                for j in range(double):
                    gates[j] = _tanh(gates[j])
                for j in range(half):
                    units[j] = gates[j] + gates[j] * gates[half + j]
                _add_product(x, units, network.outputs[layer])
        for e in range(n):
            if values[e, t] < 0:
                _add_perceptron(merged, state[e, width:], network.merge, network.merge_bias, positive)
                _add_perceptron(output, merged, network.head, network.head_bias, positive)
                values[e, t] = _drawn(output, uniforms[e, t], draw, table)


try:
    _compiled = njit(**_OPTIONS, cache=True)(_advance)
except RuntimeError:  # there is no folder to keep the program in
    _compiled = njit(**_OPTIONS)(_advance)


def advance(
    network: Network, rings: Array, values: Array, uniforms: Array, offsets: Array, *,
    begin: int, end: int, repeat: int, draw: Draw,
) -> None:  # fmt: skip
    """Draw the values of steps ``begin`` to ``end`` that are negative, and let all pass the network.

    Args:
        network: the weights.
        rings: what the layers have kept, ``(n, slots, R)``; changed.
        values: integers ``(n, T)``, known or negative; changed.
        uniforms: float64 ``(n, T)``.
        offsets: what is added to the gates, ``(n, columns, L, 2 G)``, from the column of ``begin`` on.
        begin: the first step.
        end: the one after the last.
        repeat: steps that share a column.
        draw: how a value is drawn.
    """
    given = network, rings, values, uniforms, offsets, begin, end, repeat, draw
    try:
        _compiled(*given)
    except OSError:  # a full disk: the program is compiled, and could not be kept
        _compiled(*given)
