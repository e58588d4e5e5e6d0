"""How a stage is optimized, and a recipe: a named default for a model and its stages, quoted with its source."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ancestral.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """How one stage of a training is optimized."""

    steps: int = 10_000
    """Optimizer steps."""
    batch_size: int = 128
    """Examples in one step, over all processes and accumulated parts."""
    optimizer: Literal["adam", "adamw", "adagrad", "rmsprop", "sgd"] = "adam"
    """The optimizer."""
    learning_rate: float = 1e-3
    """Learning rate after the warm-up."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's decay rates of the first and second moment."""
    eps: float = 1e-8
    """Added to the denominator by Adam, Adagrad and RMSProp."""
    weight_decay: float = 0.0
    """Weight decay (decoupled for adamw, an L2 penalty otherwise)."""
    schedule: Literal["constant", "cosine", "exponential"] = "cosine"
    """The learning rate after the warm-up: constant, a cosine down to 0 at the last step, or exponential decay."""
    decay: float = 0.999995
    """Factor for each step of the exponential schedule."""
    warmup: int = 100
    """Steps over which the learning rate rises linearly from 0."""
    gradient_clip: float | None = 1.0
    """Largest norm of the gradient; None leaves it as it is."""
    accumulate: int = 1
    """Parts that a batch is split into, to save memory. Statistics of a batch (of codebooks, of batch normalization) are then of a part."""
    compile: bool = False
    """Compile the step with torch.compile: a minute's wait at the start, faster steps after it. On a CPU it takes a C++ compiler."""
    ema: float | None = None
    """Decay of the moving average of the weights that samples and evaluations use; None keeps none."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise UserError(f"expected {name} of at least 1, got {getattr(self, name)}", f"raise {name}")
        if self.batch_size % self.accumulate:
            raise UserError(
                f"expected accumulate to divide the batch size, got {self.accumulate} and {self.batch_size}",
                "choose a divisor",
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"expected betas in [0, 1), got {self.betas}", "try 0.9 0.999")
        for name in ("weight_decay", "warmup", "eps"):
            if not getattr(self, name) >= 0:
                raise UserError(f"expected {name} of at least 0, got {getattr(self, name)}", f"raise {name}")
        if self.gradient_clip is not None and not self.gradient_clip > 0:
            raise UserError(
                f"expected a positive gradient_clip, got {self.gradient_clip}",
                "None leaves the gradient as it is",
            )
        if not self.learning_rate > 0:
            raise UserError(f"expected a positive learning rate, got {self.learning_rate}", "try 0.001")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise UserError(f"expected an ema decay in [0, 1), got {self.ema}", "try 0.999")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A named default of a model: its configuration and the optimization of each stage."""

    source: str
    """Where the settings come from: the paper and its table, or the measurement that chose them."""
    model: Any
    """The model's Config."""
    stages: Mapping[str, Optimization] = field(default_factory=lambda: {"training": Optimization()})
    """Name of each stage, in order, and how it is optimized."""
