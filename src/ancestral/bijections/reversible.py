"""A composition whose training needs memory for one of its steps alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ancestral.bijections.base import Bijection, Composition


class Reversible(Composition):
    """Bijections one after another, of which training keeps no activations.

    The backward pass inverts one step after another, and computes each anew with gradients (Gomez et al.,
    2017, https://arxiv.org/abs/1707.04585). So the memory does not grow with the number of steps; a training
    step takes two forward passes and an inverse more. The gradients are those of the inputs that the inverse
    leads back to: ``inverse_error`` says how far these were off at most, in the last backward pass.

    Every step must be invertible in training mode, as batch normalization is not.
    """

    inverse_error: Tensor

    def __init__(self, *steps: Bijection) -> None:
        super().__init__(*steps)
        self.register_buffer("inverse_error", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.forward``."""
        if not torch.is_grad_enabled():
            return super().forward(x, context)
        z, log_det = _Forgetful.apply(self, x, context, *self.parameters())
        return z, log_det


class _Forgetful(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, composition: Reversible, x: Tensor, context: Tensor | None, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        kind = x.device.type
        ctx.composition, ctx.kind, ctx.randomness = composition, kind, []
        ctx.autocast = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
        z, total = x, None
        for step in composition.bijections:
            ctx.randomness.append(_random_state(x.device))
            z, log_det = step(z, context)
            total = log_det if total is None else total + log_det
        assert total is not None
        ctx.save_for_backward(x, z, *([] if context is None else [context]))
        return z.view_as(z), total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, z, *contexts = ctx.saved_tensors
        gradient, log_det_gradient = gradients
        enabled, dtype = ctx.autocast
        sums: dict[int, Tensor] = {}
        context_gradient: Tensor | None = None
        with torch.autocast(ctx.kind, dtype, enabled=enabled):
            for step, state in zip(
                reversed(list(ctx.composition.bijections)), reversed(ctx.randomness), strict=True
            ):
                with torch.no_grad(), _replayed(state, z.device):
                    z, _ = step.inverse(z, *contexts)
                with torch.enable_grad(), _replayed(state, z.device):
                    given = [tensor.detach().requires_grad_() for tensor in (z, *contexts)]
                    trained = [p for p in step.parameters() if p.requires_grad]
                    outputs = [
                        (output, g)
                        for output, g in zip(step(*given), (gradient, log_det_gradient), strict=True)
                        if output.requires_grad
                    ]
                    found = torch.autograd.grad(
                        [output for output, _ in outputs], [*given, *trained], [g for _, g in outputs],
                        allow_unused=True,
                    )  # fmt: skip
                gradient = found[0]
                if contexts and found[1] is not None:
                    context_gradient = found[1] if context_gradient is None else context_gradient + found[1]
                for parameter, g in zip(trained, found[len(given) :], strict=True):
                    if g is not None:
                        known = sums.get(id(parameter))
                        sums[id(parameter)] = g if known is None else known + g
        ctx.composition.inverse_error.copy_((z - x).detach().abs().max())
        by_parameter = [sums.get(id(p)) for p in ctx.composition.parameters()]
        return None, gradient, context_gradient, *by_parameter


def _random_state(device: torch.device) -> Sequence[Tensor]:
    """That of torch's generators, for the CPU and the device."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


@contextmanager
def _replayed(state: Sequence[Tensor], device: torch.device) -> Iterator[None]:
    """Within, torch's generators go on from an earlier state."""
    before = _random_state(device)
    _set(state, device)
    try:
        yield
    finally:
        _set(before, device)


def _set(states: Sequence[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state, device)
