"""What samples and evaluations use in place of the last weights: a moving average, or the best ones."""

from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """Exponential moving average of parameters and of statistics; it starts from the weights, not from 0.

    The statistics of batch normalization and of codebooks belong to the weights, and are averaged with them.

    Args:
        model: whose tensors are averaged.
        names: which of ``model.state_dict()``; those that are not floating-point are not averaged.
        decay: weight of the past in each update.
        values: averages so far; a tensor that has none starts from the model's.
        updates: updates so far.

    >>> model = nn.Linear(1, 1)
    >>> _ = nn.init.zeros_(model.weight)
    >>> average = Average(model, {"weight"}, decay=0.99)
    >>> _ = nn.init.ones_(model.weight)
    >>> average.update()
    >>> with average.in_place():
    ...     print(f"{model.weight.item():.3f}")
    0.900
    >>> model.weight.item()
    1.0
    """

    def __init__(
        self,
        model: nn.Module,
        names: Set[str],
        decay: float,
        values: Mapping[str, Tensor] | None = None,
        updates: int = 0,
    ) -> None:
        self.decay, self.updates = decay, updates
        tensors = {n: t for n, t in model.state_dict(keep_vars=True).items() if n in names}
        self._weights = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
        self.values = {name: tensor.detach().clone() for name, tensor in self._weights.items()}
        for name, value in (values or {}).items():
            if name in self.values:
                self.values[name].copy_(value)

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the weights; quickly at first, so that the first weights are soon forgotten."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        weights = [weight.detach() for weight in self._weights.values()]
        torch._foreach_lerp_(list(self.values.values()), weights, 1 - decay)
        self.updates += 1

    @torch.no_grad()
    def follow(self) -> None:
        """Be what the model's tensors are, such as statistics that were taken with averages in place."""
        for name, weight in self._weights.items():
            self.values[name].copy_(weight)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model with the averages for weights, inside the block."""
        kept = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._set(self.values)
        try:
            yield
        finally:
            self._set(kept)

    @torch.no_grad()
    def _set(self, values: Mapping[str, Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.copy_(values[name])


class Best:
    """The weights of the least validation loss so far.

    Args:
        model: whose weights are kept.
        names: which of ``model.state_dict()``.
        values: those kept so far, if any.
        loss: their loss.
        step: when they were met.
    """

    def __init__(
        self, model: nn.Module, names: Set[str], values: Mapping[str, Tensor], loss: float, step: int
    ) -> None:
        self.weights, self.loss, self.step = Average(model, names, 0.0, values), loss, step

    def offer(self, loss: float, step: int) -> None:
        """Keep the model's weights, as they are now, if their loss is less."""
        if loss < self.loss:
            self.loss, self.step = loss, step
            self.weights.update()


@torch.no_grad()
def settle(model: nn.Module, averages: Mapping[str, Tensor], training: Set[str]) -> dict[str, Tensor]:
    """Make averages the model's weights where training goes on with other tensors (``training``).

    Returns the averages that go on.
    """
    state = model.state_dict()
    for name in averages.keys() - training:
        state[name].copy_(averages[name])
    return {name: value for name, value in averages.items() if name in training}
