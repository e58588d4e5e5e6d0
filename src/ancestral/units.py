"""Nats, bits and bits/dim: the only place that converts between them."""

import math
from typing import TypeVar

from torch import Tensor

Number = TypeVar("Number", float, Tensor)

NATS_PER_BIT = math.log(2.0)


def bits(nats: Number) -> Number:
    """The same information in bits.

    >>> bits(math.log(8))
    3.0
    """
    return nats / NATS_PER_BIT


def bits_per_dim(nats: Number, dims: int) -> Number:
    """Bits for each of the ``dims`` data values of one example that costs ``nats``.

    >>> bits_per_dim(784 * math.log(2), 784)
    1.0
    """
    return nats / (dims * NATS_PER_BIT)


def nats(bits_per_dim: Number, dims: int) -> Number:
    """Nats for one example of ``dims`` values at ``bits_per_dim``.

    >>> round(nats(3.0, 784), 2)
    1630.28
    """
    return bits_per_dim * (dims * NATS_PER_BIT)
