"""Distributions over the integers 0 .. levels-1: what every likelihood of this library is made of."""

from abc import abstractmethod

import torch
from torch import Generator, Size, Tensor
from torch.distributions import Distribution

Index = int | slice | tuple[int | slice, ...]
"""Selects a part of a batch shape."""

_CHUNK = 1 << 21
"""Most numbers that a table of probabilities is computed from at once: larger blocks of memory would go back
to the system each time."""


class Discrete(Distribution):
    """Independent distributions over 0..levels-1, one for each element of ``batch_shape``.

    A subclass has ``log_prob``; sampling inverts the cumulative distribution at given uniforms, so that the
    same noise gives the same integers however the probabilities were computed.

    >>> d = Categorical(torch.tensor([[0.1, 0.4, 0.2, 0.3]]).log())
    >>> d.quantile(torch.tensor([0.55])), d.quantile(torch.tensor([0.99]), top_k=2)
    (tensor([2]), tensor([3]))
    >>> round(float(d.mean), 4)
    1.7
    """

    levels: int

    def __init__(self, levels: int, batch_shape: Size) -> None:
        self.levels = levels
        super().__init__(batch_shape, validate_args=False)

    @abstractmethod
    def log_prob(self, value: Tensor) -> Tensor:
        """Log P(value) in nats, of integers that broadcast with ``batch_shape``."""

    @abstractmethod
    def __getitem__(self, index: Index) -> "Discrete":
        """The distributions of a part of the batch shape."""

    @abstractmethod
    def log_pmf(self) -> Tensor:
        """Log P of every level, ``(*batch_shape, levels)`` nats."""

    @property
    def mean(self) -> Tensor:
        """Expected value, in levels."""
        levels = torch.arange(self.levels, device=self._device, dtype=torch.get_default_dtype())
        return torch.cat([part.log_pmf().exp().to(levels.dtype) @ levels for part in self._parts()])

    @property
    def _device(self) -> torch.device:
        return self[:1].log_pmf().device

    def _parts(self) -> list["Discrete"]:
        """The distribution cut along the first dimension, so that the table of a piece fits in memory."""
        n = self.batch_shape[0]
        step = max(1, _CHUNK // max(1, self.batch_shape.numel() // max(n, 1) * self.levels * self._terms))
        return [self[i : i + step] for i in range(0, max(n, 1), step)]

    @property
    def _terms(self) -> int:
        """Numbers that the probability of one level is computed from."""
        return 1

    def quantile(
        self, uniforms: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
    ) -> Tensor:
        """The integers at which the cumulative distribution passes ``uniforms`` in [0, 1), ``batch_shape``.

        ``temperature`` sharpens the distribution to P(x)^(1/temperature), renormalized; at 0 the likeliest
        level is left. ``top_k`` keeps the k likeliest levels, ``top_p`` the fewest likeliest ones that reach
        probability p; of equally likely ones the first.
        """
        parts = self._parts()
        pieces = uniforms.split([part.batch_shape[0] for part in parts])
        return torch.cat(
            [
                _invert(part.log_pmf(), u, temperature, top_k, top_p)
                for part, u in zip(parts, pieces, strict=True)
            ]
        )

    def draw(self, temperature: float = 1.0, generator: Generator | None = None) -> Tensor:
        """One sample of each element, int64 ``batch_shape``."""
        return self.quantile(
            torch.rand(self.batch_shape, generator=generator, device=self._device), temperature
        )

    @torch.no_grad()
    def sample(self, sample_shape: Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Integers of shape ``(*sample_shape, *batch_shape)``, int64."""
        drawn = torch.stack([self.draw() for _ in range(Size(sample_shape).numel())])
        return drawn.reshape(*sample_shape, *self.batch_shape)


def _invert(
    log_pmf: Tensor, uniforms: Tensor, temperature: float, top_k: int | None, top_p: float | None
) -> Tensor:
    if temperature == 0:
        return log_pmf.argmax(-1)
    # In float64, and relative to the total, rounding never makes an impossible level possible.
    probability = torch.softmax(log_pmf.double() / temperature, dim=-1)
    if top_k is not None or top_p is not None:
        probability = _truncate(probability, top_k, top_p)
    cumulative = probability.cumsum(-1)
    threshold = uniforms.double().unsqueeze(-1) * cumulative[..., -1:]
    # The largest level that is possible caps the index, for uniforms that round up to the total.
    last = (probability > 0).to(torch.int8).flip(-1).argmax(-1)
    return (cumulative <= threshold).sum(-1).minimum(log_pmf.shape[-1] - 1 - last)


def _truncate(probability: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """The probabilities of the likeliest levels, zero elsewhere, not renormalized."""
    ordered, level = probability.sort(dim=-1, descending=True, stable=True)
    kept = torch.ones_like(ordered, dtype=torch.bool)
    if top_k is not None:
        kept[..., top_k:] = False
    if top_p is not None:  # a level is kept while those before it have not reached p
        kept &= ordered.cumsum(-1) - ordered < top_p
    return torch.zeros_like(probability).scatter(-1, level, ordered * kept)


class Categorical(Discrete):
    """A softmax over the levels.

    >>> Categorical(torch.zeros(2, 4)).log_prob(torch.tensor([0, 3])).exp()
    tensor([0.2500, 0.2500])

    Args:
        logits: ``(*batch_shape, levels)``, unnormalized.
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        super().__init__(logits.shape[-1], logits.shape[:-1])

    def __getitem__(self, index: Index) -> "Categorical":
        return Categorical(self.logits[index])

    def log_prob(self, value: Tensor) -> Tensor:
        """See ``Discrete.log_prob``."""
        return self.log_pmf().gather(-1, value.long().unsqueeze(-1)).squeeze(-1)

    def log_pmf(self) -> Tensor:
        """See ``Discrete.log_pmf``."""
        return self.logits.log_softmax(-1)


class Bernoulli(Discrete):
    """Two levels, 0 and 1.

    >>> Bernoulli(torch.tensor([0.0, 2.0])).log_pmf().exp()
    tensor([[0.5000, 0.5000],
            [0.1192, 0.8808]])

    Args:
        logits: log-odds of 1, ``batch_shape``.
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        super().__init__(2, logits.shape)

    def __getitem__(self, index: Index) -> "Bernoulli":
        return Bernoulli(self.logits[index])

    def log_prob(self, value: Tensor) -> Tensor:
        """See ``Discrete.log_prob``."""
        # A product with the sign is exact, and several times faster than a choice with its gradient.
        return torch.nn.functional.logsigmoid(self.logits * (value.to(self.logits.dtype) * 2 - 1))

    def log_pmf(self) -> Tensor:
        """See ``Discrete.log_pmf``."""
        return torch.nn.functional.logsigmoid(torch.stack((-self.logits, self.logits), -1))
