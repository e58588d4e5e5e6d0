"""Examples and what is known about them: what data, training, evaluation and models hand to each other."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Protocol

import torch
from torch import Tensor


class Examples(Protocol):
    """What a stage is trained and validated on: a ``Batch``, or what hands out batches and is none itself."""

    @property
    def labels(self) -> Tensor | None:
        """Classes ``(N,)``; None where there are no labels."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice | Tensor) -> "Batch": ...

    def some(self, n: int) -> "Batch":
        """At most ``n`` examples, evenly from all of them."""

    def tensors(self) -> dict[str, Tensor]:
        """What is stored, by name."""

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Examples":
        """The same on a device."""


@dataclass(frozen=True)
class Batch:
    """Some examples of a data set, in memory, on a device or mapped from a file.

    Everything that is done to a batch as a whole goes over ``tensors``: a new field joins in everywhere.

    >>> batch = Batch(torch.arange(6).view(3, 2), labels=torch.tensor([0, 1, 0]))
    >>> len(batch), batch[1:].labels.tolist()
    (3, [1, 0])
    """

    x: Tensor
    """``(N, *spec.shape)``: integers, floats for continuous data."""
    labels: Tensor | None = None
    """Classes ``(N,)``; None where there are no labels."""
    contexts: tuple[Tensor, ...] = ()
    """What a conditional model is conditioned on besides the class: ``(N, *context.shape)`` for each of
    ``spec.contexts``."""
    lengths: Tensor | None = None
    """Of sounds that were padded to be of one length: how many values each has of its own, along its last
    dimension, ``(N,)`` int64, at least 1; None where there is no padding. Padding counts in nothing."""

    def __len__(self) -> int:
        return len(self.x)

    @property
    def counts(self) -> Tensor:
        """How many values of each example are its own, ``(N,)`` int64.

        >>> Batch(torch.zeros(2, 1, 5), lengths=torch.tensor([5, 3])).counts
        tensor([5, 3])
        """
        if self.lengths is None:
            return torch.full((len(self),), self.x[:1].numel(), device=self.x.device)
        return self.lengths * math.prod(self.x.shape[1:-1])

    def without_padding(self, values: Tensor) -> Tensor:
        """``values`` of each of the examples' values, ``(N, ..., T)``, with zeros where these are padding.

        >>> Batch(torch.zeros(2, 1, 3), lengths=torch.tensor([3, 1])).without_padding(torch.ones(2, 1, 3))
        tensor([[[1., 1., 1.]],
        <BLANKLINE>
                [[1., 0., 0.]]])
        """
        if self.lengths is None:
            return values
        own = torch.arange(values.shape[-1], device=values.device) < self.lengths[:, None]
        return values.where(own.view(len(own), *[1] * (values.dim() - 2), -1), 0)

    def without_labels(self) -> "Batch":
        """The same examples of no class."""
        return replace(self, labels=None)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors that are there, by name: ``x``, ``labels``, ``contexts.0``, ..."""
        found: dict[str, Tensor] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                found |= {f"{field.name}.{i}": tensor for i, tensor in enumerate(value)}
            elif value is not None:
                found[field.name] = value
        return found

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Batch":
        """The batch whose ``tensors`` these are. Raises KeyError for names that no batch has."""
        values: dict[str, Tensor | tuple[Tensor, ...]] = {}
        for field in fields(cls):
            if isinstance(field.default, tuple):
                count = sum(name.startswith(f"{field.name}.") for name in tensors)
                values[field.name] = tuple(tensors[f"{field.name}.{i}"] for i in range(count))
            elif field.name in tensors:
                values[field.name] = tensors[field.name]
        batch = cls(**values)  # type: ignore[arg-type]
        if foreign := tensors.keys() - batch.tensors().keys():
            raise KeyError(min(foreign))
        return batch

    def map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with ``function`` applied to each tensor."""
        return Batch.of({name: function(tensor) for name, tensor in self.tensors().items()})

    def __getitem__(self, index: slice | Tensor) -> "Batch":
        """Some of the examples."""
        return self.map(lambda tensor: tensor[index])

    def some(self, n: int) -> "Batch":
        """At most ``n`` examples, evenly from all of them: the first alone may all be of one class.

        >>> Batch(torch.arange(100)).some(4).x.tolist()
        [0, 25, 50, 75]
        """
        return self[evenly(n, len(self))]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """The batch on a device."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    @classmethod
    def cat(cls, batches: Iterable["Batch"]) -> "Batch":
        """One batch after another; only what all of them have is kept."""
        parts = [batch.tensors() for batch in batches]
        names = [name for name in parts[0] if all(name in part for part in parts)]
        return cls.of({name: torch.cat([part[name] for part in parts]) for name in names})


def evenly(n: int, of: int) -> Tensor:
    """The places of at most ``n`` examples, evenly from all.

    >>> evenly(3, of=10).tolist()
    [0, 3, 6]
    """
    n = min(n, of)
    return torch.arange(n) * of // max(n, 1)
