"""Nats, bits and bits/dim: the only place that converts between them."""

import math
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:  # the report reads this file, and needs no torch
    from torch import Tensor

Number = TypeVar("Number", float, "Tensor")

NATS_PER_BIT = math.log(2.0)

RATES = {
    "bits_per_dim": "bits/dim",
    "bits_per_code": "bits/code",
    "bits_per_sample": "bits/sample",
}
"""Endings of the names of terms that are rates, and how people read them: bits for each value of an example,
for each code of a map of codes, and for each value in time of a sound."""


def rate_of(domain: str | None) -> str:
    """What the rate of examples of a domain is called, of ``RATES``.

    >>> rate_of("sound"), rate_of("image")
    ('bits_per_sample', 'bits_per_dim')
    """
    return {"codes": "bits_per_code", "sound": "bits_per_sample"}.get(domain or "", "bits_per_dim")


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
