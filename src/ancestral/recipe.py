"""How a stage is optimized, and a recipe: a named default for a model and its stages, quoted with its source."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from ancestral.configuration import Configuration, Count, Natural, NonNegative, Positive, Range, Share
from ancestral.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Updates(Configuration):
    """How the weights of one phase are updated."""

    optimizer: Literal["adam", "adamw", "adagrad", "rmsprop", "sgd"] = "adam"
    """The optimizer."""
    learning_rate: Positive = 1e-3
    """Learning rate after the warm-up."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Adam's decay rates of the first and second moment."""
    eps: NonNegative = 1e-8
    """Added to the denominator by Adam, Adagrad and RMSProp."""
    weight_decay: NonNegative = 0.0
    """Weight decay (decoupled for adamw, an L2 penalty otherwise)."""
    schedule: Literal["constant", "cosine", "exponential"] = "cosine"
    """The learning rate after the warm-up: constant, a cosine down to 0 at the last step, or exponential decay."""
    decay: float = 0.999995
    """Factor for each step of the exponential schedule."""
    warmup: Natural = 100
    """Steps over which the learning rate rises linearly from 0."""
    gradient_clip: Annotated[float | None, Range(above=0)] = 1.0
    """Largest norm of the gradient; None leaves it as it is."""


@dataclass(frozen=True, kw_only=True)
class Optimization(Updates):
    """How one stage of a training is optimized.

    The fields of ``Updates`` are those of the stage's one phase. A stage of several phases has ``phases``
    instead.

    >>> Optimization(phases={"critic": Updates(learning_rate=4e-4), "generator": Updates(learning_rate=1e-4)}).of("critic").learning_rate
    0.0004
    """

    steps: Count = 10_000
    """Optimizer steps."""
    batch_size: Count = 128
    """Examples in one step, over all processes and accumulated parts."""
    accumulate: Count = 1
    """Parts that a batch is split into, to save memory. Statistics of a batch (of codebooks, of batch normalization) are of a part."""
    compile: bool = False
    """Compile the step with torch.compile: a minute's wait at the start, faster steps after it. On a CPU it takes a C++ compiler."""
    ema: Share | None = None
    """Decay of the moving average of the weights that samples and evaluations use; None keeps none."""
    phases: Mapping[str, Updates] = field(default_factory=dict)
    """Of a stage with several phases: how each one that has an optimizer of its own is updated."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size % self.accumulate:
            problem = (
                f"expected accumulate to divide the batch size, got {self.accumulate} and {self.batch_size}"
            )
            raise UserError(problem, "choose a divisor")

    def of(self, phase: str) -> Updates:
        """How a phase is updated. Raises KeyError for a phase that a stage of several does not list."""
        return self.phases[phase] if self.phases else self


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A named default of a model: its configuration and the optimization of each stage."""

    source: str
    """Where the settings come from: the paper and its table, or the measurement that chose them."""
    model: Any
    """The model's Config."""
    stages: Mapping[str, Optimization] = field(default_factory=lambda: {"training": Optimization()})
    """Name of each stage, in order, and how it is optimized. An optional stage that is left out is not trained."""
