"""A stage at work: what its steps share, and the losses that nobody has looked at yet."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ancestral.batch import Batch, Examples
from ancestral.errors import UserError
from ancestral.model import Model
from ancestral.recipe import Optimization, Updates
from ancestral.stages import Phase, Progress, Stage
from ancestral.training.averaging import Average, Best
from ancestral.training.batches import Batches

if TYPE_CHECKING:
    from ancestral.training.sharding import Shards


class Diverged(UserError):
    """A loss, a weight or a statistic became NaN or infinite."""


class PhaseLoss(nn.Module):
    """The loss of a phase as a forward pass, which is what Fabric, DDP and torch.compile wrap."""

    def __init__(self, model: Model, optimization: Optimization) -> None:
        super().__init__()
        self.model, self.steps, self.batch_size = model, optimization.steps, optimization.batch_size

    def forward(
        self, tensors: dict[str, Tensor], phase: str, step: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimize, and the terms to watch, of a batch as ``Batch.tensors`` gives it."""
        loss = self.model.loss(Batch.of(tensors), phase, Progress(step, self.steps, self.batch_size))
        return loss.total, dict(loss.terms)


@dataclass
class _Pending:
    """A loss that the host has not looked at yet."""

    phase: str
    step: int
    total: Tensor
    terms: Mapping[str, Tensor]


@dataclass(kw_only=True)
class Work:
    """A stage at work."""

    stage: Stage
    optimization: Optimization
    run: Path
    device: torch.device
    batches: Batches
    validation: Examples
    module: Any
    optimizers: Mapping[str, Any]
    """By the name of the phase that owns it."""
    average: Average | None
    best: Best | None
    progress: Progress
    """Its step is one tensor that each step fills anew, so that nothing waits for a copy to the device."""
    pending: list[_Pending] = field(default_factory=list)
    sums: dict[str, tuple[Tensor | float, int]] = field(default_factory=dict)
    """Sum of each term since the last entry of the journal, and how many were added."""
    steps: int = 0
    """Steps since then."""
    shards: "Shards | None" = None
    """What the steps train in place of the model, where that is sharded."""
    clock: float = 0.0
    said: set[str] = field(default_factory=set)
    """Signs of trouble that were said."""

    def warn(self, values: Mapping[str, float], done: int) -> None:
        """Say the signs of trouble in what was logged after so many steps, those that were not said yet."""
        found = () if self.stage.watch is None else self.stage.watch(values, done / self.optimization.steps)
        for sign in found:
            if sign not in self.said:
                self.said.add(sign)
                print(f"step {done}: {sign}", flush=True)

    def optimizer(self, phase: Phase) -> Any:
        """What updates the weights of a phase: its own optimizer or the one that it shares."""
        return self.optimizers[phase.optimizer or phase.name]

    def updates(self, phase: Phase) -> Updates:
        """How a phase is updated."""
        return self.optimization.of(phase.optimizer or phase.name)

    def term(self, phase: Phase, name: str) -> str:
        """What a term is called in the journal."""
        return name if len(self.stage.phases) == 1 else f"{phase.name}_{name}"

    def count(self, phase: Phase, step: int, total: Tensor, terms: Mapping[str, Tensor]) -> None:
        """Note a loss and its terms, without looking at them: that would wait for the device."""
        self.pending.append(_Pending(phase.name, step, total, terms))
        for name, value in (("loss", total), *terms.items()):
            key = self.term(phase, name)
            before, n = self.sums.get(key, (0.0, 0))
            self.sums[key] = (before + value, n + 1)

    def check_losses(self) -> None:
        """Raise Diverged, naming the first term, if a loss that was not looked at yet is NaN or infinite."""
        pending, self.pending = self.pending, []
        if not pending or bool(torch.stack([p.total for p in pending]).isfinite().all()):
            return
        for p in pending:
            if not bool(p.total.isfinite()):
                bad = [name for name, value in p.terms.items() if not bool(value.isfinite())]
                raise self.diverged(p.step, f"phase {p.phase}, term {bad[0] if bad else 'total'}")

    def check_finite(self, step: int, tensors: Mapping[str, Tensor], what: str) -> None:
        """Raise Diverged, naming the first, if one of the tensors is NaN or infinite."""
        floats = {name: t for name, t in tensors.items() if t.is_floating_point() and t.numel()}
        finite = {name: t.detach().isfinite().all().to(self.device) for name, t in floats.items()}
        if finite and not bool(torch.stack(list(finite.values())).all()):
            raise self.diverged(step, f"{what} {next(n for n, ok in finite.items() if not bool(ok))}")

    def diverged(self, step: int, where: str) -> Diverged:
        """The error that ends the training, which says whether something good is left."""
        kept = any((self.run / "checkpoints").glob("*/step-*"))
        return Diverged(
            f"expected finite numbers, got NaN or inf in stage {self.stage.name}, step {step}, {where}",
            f"{'the last good checkpoint is kept; ' if kept else ''}try a lower "
            f"--{self.stage.name}.learning-rate in a new folder",
        )
