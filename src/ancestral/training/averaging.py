"""A moving average of the weights, which samples and evaluations use in their place."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """Exponential moving average of the trained weights and of statistics; it starts from the weights, not from 0.

    The statistics of batch normalization and of codebooks belong to the weights, and are averaged with them.

    Args:
        model: whose parameters that require gradients, and floating-point buffers, are averaged.
        decay: weight of the past in each update.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters: dict[str, Tensor] = {
            name: p for name, p in model.named_parameters() if p.requires_grad
        }
        saved = model.state_dict().keys()
        self._parameters |= {
            name: b for name, b in model.named_buffers() if b.is_floating_point() and name in saved
        }
        self.values = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights after ``step`` steps; quickly at first, so that the first weights are soon forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.values.values()), list(self._parameters.values()), 1 - decay)

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Take up averages that were saved."""
        for name, value in self.values.items():
            value.copy_(values[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model with the averages for weights, inside the block."""
        kept = {name: p.detach().clone() for name, p in self._parameters.items()}
        self.replace_weights()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, p in self._parameters.items():
                    p.copy_(kept[name])

    @torch.no_grad()
    def replace_weights(self) -> None:
        """Make the averages the model's weights."""
        for name, p in self._parameters.items():
            p.copy_(self.values[name])
