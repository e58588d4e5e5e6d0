"""How a stage is optimized; recipes: named defaults for a model and its stages, quoted with their source."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from ancestral.configuration import Configuration, Count, Natural, NonNegative, Positive, Range, Share
from ancestral.errors import UserError

_LEAST_HALF_LIFE = 10
"""Examples, below which a number is a decay that somebody has mistyped."""


@dataclass(frozen=True, kw_only=True)
class Updates(Configuration):
    """How the weights of one phase are updated."""

    optimizer: Literal["adam", "adamw", "adamax", "adagrad", "rmsprop", "sgd"] = "adam"
    """The optimizer."""
    learning_rate: Positive = 1e-3
    """Learning rate after the warm-up."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Adam's decay rates of the first and second moment."""
    eps: NonNegative = 1e-8
    """Added to the denominator by Adam, Adamax, Adagrad and RMSProp."""
    momentum: Share = 0.0
    """Of sgd."""
    weight_decay: NonNegative = 0.0
    """Weight decay (decoupled for adamw, an L2 penalty otherwise)."""
    schedule: Literal["constant", "cosine", "linear", "exponential"] = "cosine"
    """The learning rate after the warm-up: constant, a cosine or a line to 0 at the last step, or exponential
    decay."""
    decay_from: Share = 0.0
    """The share of the steps after which the line falls; until then the rate is constant."""
    decay: float = 0.999995
    """Factor for each step of the exponential schedule."""
    decay_to: NonNegative = 0.0
    """The learning rate that a schedule never goes below."""
    warmup: Natural = 100
    """Steps over which the learning rate rises linearly from 0."""
    gradient_clip: Annotated[float | None, Range(above=0)] = 1.0
    """Largest norm of the gradient; None leaves it as it is."""


@dataclass(frozen=True, kw_only=True)
class Optimization(Updates):
    """How one stage of a training is optimized.

    The fields of ``Updates`` are those of the stage's one phase; a stage of several has ``phases`` instead.

    >>> Optimization(learning_rate=3e-4).of("training").learning_rate
    0.0003
    >>> game = Optimization(phases={"critic": Updates(betas=(0.0, 0.9)), "generator": Updates()})
    >>> game.of("critic").betas
    (0.0, 0.9)
    """

    steps: Count = 10_000
    """Optimizer steps."""
    batch_size: Count = 128
    """Examples in one step, over all processes and accumulated parts."""
    accumulate: Count = 1
    """Parts that a batch is split into, to save memory. Codebooks and batch norms see a part at a time."""
    compile: bool = False
    """Compile the step with torch.compile: a minute's wait, faster steps then. A CPU takes a C++ compiler."""
    recompute: bool = False
    """Compute the activations inside a network's blocks a second time in the backward pass, in place of
    keeping them: the same weights with less memory, for the time of another forward pass. The networks of
    autoregressive models, and of others that name their blocks."""
    ema: NonNegative | None = None
    """Of the moving average of the weights that samples and evaluations use, its decay in a step, below 1; or
    its half-life in examples, 10 or more, so that other batch sizes average over as many. None keeps none."""
    keep_best: bool = False
    """Keep the weights that were best on the validation split, by their loss when they were evaluated, in
    place of the last ones: where examples are few, a model learns them by heart in the end."""
    phases: Mapping[str, Updates] = field(default_factory=dict)
    """Of a stage with several phases: how each one that has an optimizer of its own is updated."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size % self.accumulate:
            problem = (
                f"expected accumulate to divide the batch size, got {self.accumulate} and {self.batch_size}"
            )
            raise UserError(problem, "choose a divisor")
        if self.ema is not None and 1 <= self.ema < _LEAST_HALF_LIFE:
            problem = f"expected ema below 1, or {_LEAST_HALF_LIFE} examples and more, got {self.ema}"
            raise UserError(problem, "try 0.999, or 20000")

    @property
    def average_decay(self) -> float | None:
        """Weight of the past in each step's update of the average; None if there is none.

        >>> Optimization(batch_size=64, ema=64).average_decay
        0.5
        """
        if self.ema is None or self.ema < 1:
            return self.ema
        return float(0.5 ** (self.batch_size / self.ema))

    def of(self, phase: str) -> Updates:
        """How a phase is updated. Raises KeyError for a phase that a stage of several does not list."""
        return self.phases[phase] if self.phases else self


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A named default of a model: its configuration and the optimization of each stage.

    >>> from ancestral.models.latent.vae import VAE
    >>> recipe = Recipe(source="a first try", model=VAE.Config(latents=8))
    >>> list(recipe.stages), recipe.stages["training"].batch_size
    (['training'], 128)
    """

    source: str
    """Where the settings come from: the paper and its table, or the measurement that chose them."""
    model: Any
    """The model's Config."""
    stages: Mapping[str, Optimization] = field(default_factory=lambda: {"training": Optimization()})
    """Each stage, in order, and how it is optimized. An optional stage that is left out is not trained."""
