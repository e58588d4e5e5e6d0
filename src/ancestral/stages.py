"""How a model is trained: stages one after another, phases inside a step, and how far a stage has come."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ancestral.batch import Batch


@dataclass(frozen=True)
class Progress:
    """How far the training of a stage has come.

    Warm-ups, annealing and fade-ins are functions of it, and no model counts steps.

    >>> Progress.at(30, 120).ramp(60)
    tensor(0.5000)
    """

    step: Tensor
    """Steps done before the one at hand, a scalar on the model's device; the same for all parts of an
    accumulated batch."""
    steps: int
    """How many the stage has."""
    batch_size: int
    """Examples of a step, over all processes and parts of an accumulated batch."""

    @classmethod
    def at(
        cls, step: int, steps: int, device: torch.device | str = "cpu", *, batch_size: int = 1
    ) -> "Progress":
        """The progress before ``step``, counted from 0."""
        return cls(torch.tensor(step, device=device), steps, batch_size)

    def ramp(self, steps: int, start: int = 0) -> Tensor:
        """A weight that rises linearly from 0 at step ``start`` to 1 over ``steps`` steps; 1 for 0 steps."""
        if steps == 0:
            return torch.ones((), device=self.step.device)
        return ((self.step - start) / steps).clamp(0, 1)


@dataclass(frozen=True)
class Loss:
    """What one phase of a step minimizes."""

    total: Tensor
    """The scalar to minimize: a mean over the batch."""
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    """Scalars to watch, means over the batch; a name ends in its unit unless that is nats."""


@dataclass(frozen=True)
class Phase:
    """A part of a training step with a loss of its own (a GAN alternates critic and generator).

    >>> critic = nn.Linear(2, 1)
    >>> game = Phase("critic", (critic,), repeat=5)
    >>> penalty = Phase("penalty", (critic,), optimizer="critic", validated=False, every=16)
    >>> game.parameters == penalty.parameters == (critic.weight, critic.bias)
    True
    """

    name: str
    modules: tuple[nn.Module, ...]
    """What the phase trains: their parameters change, all others are frozen meanwhile."""
    optimizer: str | None = None
    """The phase of the same stage whose optimizer this one shares, state and options (a lazy regularizer
    of the critic shares the critic's); None has its own."""
    validated: bool = True
    """Whether the loss is computed on the validation split too, which happens without gradients; a gradient
    penalty cannot be."""
    every: int = 1
    """The phase takes part in each ``every``-th step (lazy regularizers)."""
    repeat: int = 1
    """Times that the phase is repeated in a step, each with a batch of its own (n-critic)."""

    @property
    def parameters(self) -> tuple[nn.Parameter, ...]:
        """The parameters of the modules, each once."""
        return tuple({id(p): p for module in self.modules for p in module.parameters()}.values())


@dataclass(frozen=True)
class Stage:
    """A part of a training with data and a number of steps of its own.

    A VQ-VAE has one for its tokenizer, then one for its prior; a growing GAN has one a resolution.

    >>> critic, generator = nn.Linear(2, 1), nn.Linear(3, 2)
    >>> phases = Phase("critic", (critic,)), Phase("generator", (generator,))
    >>> Stage("training", phases, averaged=(generator,)).modules == (critic, generator)
    True
    """

    name: str
    phases: tuple[Phase, ...]
    prepare: Callable[[Batch], Batch] | None = None
    """Transforms the data once, without gradients, before the stage; the result is kept in the run. Stages
    with the same function (one that compares equal) share it: each may pick its part by ``transform``. What
    is prepared is mapped from files: never write to it."""
    transform: Callable[[Batch, Progress], Batch] | None = None
    """Changes each batch, on the device, without gradients, by torch's generators, which the loop seeds for
    each step: dequantization, augmentation, the resolution of a growing model. Validation batches too, in
    evaluation mode."""
    initialize: Callable[[Batch], None] | None = None
    """Sets weights from data, once, before the first step: k-means, weight normalization, ActNorm. It is
    given the first batch (of accumulated parts the first), in training mode, without gradients; running
    statistics of normalization do not count it."""
    initial: int | None = None
    """Examples that ``initialize`` is given, over all processes; None for those of the first batch."""
    averaged: tuple[nn.Module, ...] | None = None
    """What is averaged if the stage's optimization says so (``ema``): of a GAN the generator. All that its
    phases train if None. An average goes on through the stages that train its modules, quickly at the start
    of each, and is what samples and evaluations use."""
    finish: Callable[[], None] | None = None
    """Sets statistics once the weights are final: called at the end, with the averages for weights, without
    gradients and in every process, before the model is saved. Not of a model in parts (FSDP)."""
    samples: bool = True
    """Whether the model can be sampled once this stage and the ones before it are trained."""
    measured: bool = False
    """Whether samples are measured while the stage trains, where the data have classes: of models whose loss
    tells nothing of them."""
    watch: Callable[[Mapping[str, float], float], Sequence[str]] | None = None
    """Given what was logged, means of terms or measures of samples, and the share of the steps that are done:
    signs of trouble, a sentence each that says what helps. A process says each once."""
    compiles: bool = True
    """Whether the losses can be compiled, which those that differentiate a gradient cannot."""
    optional: bool = False
    """Whether the model can do without (a classifier that only sorts samples)."""
    needs: tuple[str, ...] | None = None
    """Stages whose weights this one builds on; all before it if None. Training one of them anew makes this
    one worthless."""

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """What the phases train."""
        return tuple({id(m): m for phase in self.phases for m in phase.modules}.values())


def needed(stage: Stage, stages: Sequence[Stage]) -> set[str]:
    """The names of the stages whose weights a stage builds on, directly or through one that it needs.

    >>> a, b, c = Stage("a", ()), Stage("b", (), needs=("a",)), Stage("c", (), needs=("b",))
    >>> sorted(needed(c, (a, b, c)))
    ['a', 'b']
    """
    named, found, left = {s.name: i for i, s in enumerate(stages)}, set[str](), [stage.name]
    while left:
        i = named[left.pop()]
        before = [s.name for s in stages[:i]] if stages[i].needs is None else stages[i].needs
        left += {*(before or ())} - found
        found |= {*(before or ())}
    return found


def owned(model: nn.Module, modules: Iterable[nn.Module]) -> set[str]:
    """The names in ``model.state_dict()`` of the parameters and buffers of some of its modules.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    >>> sorted(owned(model, [model[1]]))
    ['1.bias', '1.weight']
    """
    inside = {id(t) for module in modules for t in (*module.parameters(), *module.buffers())}
    named = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    return {name for name, tensor in named if id(tensor) in inside} & model.state_dict().keys()


def idle(model: nn.Module, stages: Sequence[Stage], used: Iterable[str]) -> dict[str, set[str]]:
    """Of each stage that is neither named in ``used`` nor needed by one that is: the names of its weights.

    As in ``owned``, without those that it shares with the stages that are used.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    >>> tokenizer, prior = (Stage(n, (Phase(n, (m,)),)) for n, m in zip(("tokenizer", "prior"), model))
    >>> {name: sorted(weights) for name, weights in idle(model, (tokenizer, prior), ["tokenizer"]).items()}
    {'prior': ['1.bias', '1.weight']}
    >>> idle(model, (tokenizer, prior), ["prior"])
    {}
    """
    names = {*used}
    names |= {name for stage in stages if stage.name in names for name in needed(stage, stages)}
    kept = owned(model, [module for stage in stages if stage.name in names for module in stage.modules])
    return {s.name: owned(model, s.modules) - kept for s in stages if s.name not in names}


@torch.no_grad()
def initialize(model: nn.Module, stage: Stage, batch: Batch) -> None:
    """Let a stage set weights from its first batch, as ``Stage.initialize`` says.

    Only what it sets has changed afterwards.
    """
    if stage.initialize is None:
        return
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
    kept = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers(recurse=False)]
    model.train()
    stage.initialize(batch)
    for buffer, value in kept:  # the first step meets the same batch, and would count it twice
        buffer.copy_(value)
