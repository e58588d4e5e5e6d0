"""A certificate of causality: what a network sees, found by changing its input and looking at its output.

A network with random weights in float64 is given examples, as integers. Each value of the input is changed in
turn, and every output that moves has seen it, whatever the network is made of: a leak is an output that sees
itself or the future, a blind spot one that does not see a part of the past that it should.

What is found is there. What is not found may be where no probe went: a trial changes one value at a time of
one example, to one other level, at one draw of the weights. It cannot see a threshold that none of these
crosses, a dependence on levels that were not drawn or on several values together, units that are dead at all
draws, constants that are no parameters and happen to be 0, or an effect below 1e-12 of the largest output.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ancestral.configuration import Range
from ancestral.distributions.discrete import Discrete
from ancestral.errors import UserError
from ancestral.media import with_key, write_png
from ancestral.models.autoregressive.base import Autoregressive
from ancestral.spec import Spec

Network = Callable[[Tensor], Tensor | Discrete]
"""Integers ``(N, *spec.shape)`` to the parameters of each value's distribution, ``(N, *spec.shape, P)`` (or
``(N, P, *grid)`` of a single channel), or to the distributions themselves."""

_BATCH = 64
_ROUNDING = 1e-12
"""Share of the largest output up to which a difference is rounding. Sums in another order and Fourier
transforms differ by about 1e-15 of it in float64; an effect of 1e-12 is far below what float32 can show."""


@dataclass(frozen=True)
class Certificate:
    """What a network sees.

    Outputs and inputs are numbered in raster order, channels in order within a position. ``print`` it for the
    findings in words; ``picture`` draws them.
    """

    spec: Spec
    seen: Tensor
    """Whether output i depends on input j, ``(D, D)`` boolean."""
    declared: Tensor
    """Whether it should, ``(D, D)`` boolean."""
    seen_in_training: Tensor
    """The same as ``seen`` in training mode, where that is another function, without dropout and with the
    running statistics of batch normalization."""
    across_batch: dict[str, bool] = field(default_factory=dict)
    """For each mode, whether an example's outputs depend on another example of the batch."""
    mode_matters: bool = False
    """Whether training mode gives other outputs than evaluation mode, dropout and noise aside."""
    random: bool = False
    """Whether evaluation mode gives other outputs from pass to pass: noise, or dropout that is always on."""
    random_in_training: bool = False
    """The same in training mode, without the dropout of PyTorch's modules."""
    told_in_training: bool = True
    """Whether ``seen_in_training`` could be found: not where a network has batch statistics of its own."""

    @property
    def leaks(self) -> Tensor:
        """Pairs (output, input) that are seen and must not be, ``(n, 2)``: the input is no earlier."""
        later = torch.ones_like(self.seen).triu()
        return ((self.seen | self.seen_in_training) & later).nonzero()

    @property
    def undeclared(self) -> Tensor:
        """Pairs of the past that are seen although they are not declared, ``(n, 2)``."""
        past = torch.ones_like(self.seen).tril(-1)
        return (self.seen & past & ~self.declared).nonzero()

    @property
    def blind(self) -> Tensor:
        """Pairs of the declared past that are not seen, ``(n, 2)``."""
        return (self.declared & ~self.seen).nonzero()

    @property
    def causal(self) -> bool:
        """No leak of any kind and nothing random: the product of the conditionals is a likelihood."""
        faults = len(self.leaks), any(self.across_batch.values()), self.mode_matters, self.random
        return not any(faults)

    @property
    def ok(self) -> bool:
        """Causal, and sees exactly the declared past."""
        return self.causal and not len(self.blind) and not len(self.undeclared)

    def __str__(self) -> str:
        """The findings, a line each."""
        total = int(self.declared.sum())
        unseen = len(self.blind)
        lines = [
            f"sees {total - unseen:,} of the {total:,} pairs (output, input) of the past that it declares"
        ]
        if self.random:
            lines.append(
                "RANDOM: outputs change from pass to pass (noise, or dropout that is always on): "
                "this is no likelihood, and what it sees is uncertain"
            )
        past = torch.ones_like(self.seen).tril(-1)
        if len(hidden := (past & ~self.declared).nonzero()):
            lines.append(
                f"declares less than the whole past of {int(past.sum()):,} pairs: "
                + self._example(hidden, "is not to see")
            )
        if unseen:
            lines.append(
                "BLIND SPOT (or dead units of a narrow network: raise trials): "
                + self._example(self.blind, "does not see")
            )
        if len(self.undeclared):
            lines.append(f"MORE THAN DECLARED: {self._example(self.undeclared, 'sees')}")
        later = torch.ones_like(self.seen).triu()
        if len(always := (self.seen & later).nonzero()):
            lines.append(f"LEAK: {self._example(always, 'sees')}")
        if len(training := (self.seen_in_training & ~self.seen & later).nonzero()):
            lines.append(f"LEAK in training mode: {self._example(training, 'sees')}")
        if not len(self.leaks):
            lines.append("no output sees itself or the future")
        leaking = [mode for mode, leaks in self.across_batch.items() if leaks]
        lines.append(
            f"LEAK ACROSS THE BATCH in {' and '.join(leaking)} mode"
            if leaking
            else "examples of a batch are independent of each other"
        )
        if not self.told_in_training:
            lines[-1] += ", where what an output sees of its own example cannot be told"
        if self.mode_matters:
            lines.append("MODE: training mode gives other outputs than evaluation mode")
        elif self.random_in_training and not self.random:
            lines.append("training mode is random (dropout?), and was not compared with evaluation mode")
        else:
            lines.append("training mode gives the same outputs")
        return "\n".join(lines)

    def _example(self, pairs: Tensor, verb: str) -> str:
        output, given = (self._place(int(i)) for i in pairs[len(pairs) // 2])
        more = f", and {len(pairs) - 1:,} more" if len(pairs) > 1 else ""
        return f"output {output} {verb} input {given}{more}"

    def _place(self, index: int) -> str:
        """``(channel, row, column)`` of an index in the order of the factorization."""
        channels, *grid = self.spec.shape
        position, channel = divmod(index, channels)
        place = [channel]
        for size in reversed(grid):
            position, i = divmod(position, size)
            place.insert(1, i)
        return f"({', '.join(map(str, place))})"

    def picture(self, path: str | Path, output: tuple[int, ...] | None = None) -> Path:
        """Draw what one output sees to a PNG file: a map for each input channel, above a key of the colors.

        Args:
            path: where to.
            output: ``(channel, row, column)`` (``(channel, time)``); the worst one if None: that with the
                most faults.
        """
        channels = self.spec.shape[0]
        index = self._worst() if output is None else self._index(output)
        future = torch.ones_like(self.seen).triu()[index]
        seen, declared = self.seen[index] | (self.seen_in_training[index] & future), self.declared[index]
        itself = torch.arange(len(seen)) == index
        kinds = {
            f"the output {self._place(index)} itself": ((255, 255, 255), itself & ~seen),
            "seen": ((76, 160, 90), seen & declared),
            "LEAK: seen, and itself or later": ((215, 60, 55), seen & future),
            "BLIND SPOT: declared, and not seen": ((70, 110, 210), ~seen & declared),
            "seen, though not declared": ((225, 190, 60), seen & ~declared & ~future),
            "past that is not declared": ((120, 120, 120), ~seen & ~declared & ~future),
            "later": ((40, 40, 40), ~seen & future & ~itself),
        }
        colors = torch.zeros(len(seen), 3, dtype=torch.uint8)
        for color, where in kinds.values():
            colors[where] = torch.tensor(color, dtype=torch.uint8)
        grid = self.spec.shape[1:] if len(self.spec.shape) == 3 else (1, *self.spec.shape[1:])
        border = torch.full((grid[0], 1, 3), 255, dtype=torch.uint8)
        maps = colors.view(*grid, channels, 3).unbind(2)
        key = {name: color for name, (color, where) in kinds.items() if bool(where.any())}
        drawn = torch.cat([part for m in maps for part in (m, border)][:-1], 1).numpy()
        write_png(Path(path), with_key(drawn, key), enlarge=False)
        return Path(path)

    def _worst(self) -> int:
        faults = torch.zeros(len(self.seen))
        for pairs in (self.leaks, self.blind):
            faults += torch.bincount(pairs[:, 0], minlength=len(faults))
        # Without faults, the middle of the map shows the receptive field best.
        channels, *grid = self.spec.shape
        middle = self._index((channels - 1, *(size // 2 for size in grid)))
        return int(faults.argmax()) if bool(faults.any()) else middle

    def _index(self, place: tuple[int, ...]) -> int:
        if len(place) != len(self.spec.shape) or any(
            not 0 <= i < size for i, size in zip(place, self.spec.shape, strict=True)
        ):
            raise UserError(
                f"expected a place within {self.spec.shape}, got {place}", "give channel, row and column"
            )
        position = 0
        for i, size in zip(place[1:], self.spec.shape[1:], strict=True):
            position = position * size + i
        return position * self.spec.shape[0] + place[0]


def certify(
    subject: nn.Module | Network,
    spec: Spec | None = None,
    *,
    declared: Tensor | None = None,
    trials: int = 8,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Certificate:
    """Find what an autoregressive network sees.

    Every value of an example is changed in turn, in float64, for several weights at random (of a module), in
    evaluation mode and, where it makes a difference, in training mode. An output that moves by more than
    rounding is one that sees. This is a test and no proof: ``ancestral.evaluation.certificate`` says what
    probes cannot see.

    >>> print(certify(lambda x: x.double().cumsum(-1), Spec(shape=(1, 1, 4), levels=4)))
    sees 6 of the 6 pairs (output, input) of the past that it declares
    LEAK: output (0, 0, 2) sees input (0, 0, 2), and 3 more
    examples of a batch are independent of each other
    training mode gives the same outputs

    Args:
        subject: a model of the library, or any network (see ``Network``); of a module a copy with random
            weights is examined.
        spec: of the data; of a model of the library its own.
        declared: whether output i should see input j, ``(D, D)`` boolean, numbered in raster order with
            channels in order within a position; by default what the model declares, and the whole past for
            other networks.
        trials: networks with other weights (for a function: other examples) whose views are joined, since a
            dead unit looks like a blind spot.
        seed: of weights and examples.
        progress: called with the share of the trials that is done.

    Raises:
        UserError: a network whose output is not one of those that ``Network`` names, a module that cannot be
            copied, or a declaration of another shape.
    """
    Range(least=1, most=1000).check("trials", trials)
    spec = _spec_of(subject, spec)
    size = spec.dims
    if declared is None:
        declared = (
            subject.declared_past()
            if isinstance(subject, Autoregressive)
            else torch.ones(size, size, dtype=torch.bool).tril(-1)
        )
    if tuple(declared.shape) != (size, size):
        raise UserError(
            f"expected a declaration of shape {(size, size)}, got {tuple(declared.shape)}",
            "a row for each output",
        )
    modes = ("evaluation", "training") if isinstance(subject, nn.Module) else ("evaluation",)
    seen = {mode: torch.zeros(size, size, dtype=torch.bool) for mode in modes}
    across, random = dict.fromkeys(modes, False), dict.fromkeys(modes, False)
    mode_matters, told = False, True
    for trial in range(trials):
        generator = torch.Generator().manual_seed(seed + trial)
        network = _randomized(subject, generator) if isinstance(subject, nn.Module) else subject
        probe = _Probe(network, spec, *_conditions(subject, generator))
        x = torch.randint(spec.discrete_levels, (_BATCH, *spec.shape), generator=generator)
        if isinstance(network, nn.Module):
            network.eval()
        evaluated = probe(x)
        random["evaluation"] |= _differ(evaluated, probe(x, seed=1))
        across["evaluation"] |= probe.leaks_across(x, generator)
        seen["evaluation"] |= probe.sees(x[:1], generator)
        if isinstance(network, nn.Module):
            _train_without_dropout(network)
            trained = probe(x)
            random["training"] |= _differ(trained, probe(x, seed=1))
            across["training"] |= probe.leaks_across(x, generator)
            mode_matters |= _differ(evaluated, trained)
            _keep_statistics(network)
            if _differ(evaluated, probe(x)):  # another function, which may see other things
                if probe.leaks_across(x, generator):
                    told = False
                else:
                    seen["training"] |= probe.sees(x[:1], generator)
        if progress:
            progress((trial + 1) / trials)
    return Certificate(
        spec=spec,
        seen=seen["evaluation"],
        declared=declared,
        seen_in_training=seen[modes[-1]],
        across_batch=across,
        # Noise of training alone is a difference that says nothing.
        mode_matters=mode_matters and (random["evaluation"] or not random[modes[-1]]),
        random=random["evaluation"],
        random_in_training=random[modes[-1]],
        told_in_training=told,
    )


def _spec_of(subject: object, spec: Spec | None) -> Spec:
    if spec is None:
        if not isinstance(subject, Autoregressive):
            raise UserError(
                "expected a spec beside a network of your own, got none",
                "give certify(network, Spec(shape=..., levels=...))",
            )
        return subject.spec
    if isinstance(subject, Autoregressive) and spec != subject.spec:
        raise UserError(
            f"expected no spec beside a model of the library, got {spec}",
            "leave it out: the model has its own",
        )
    return spec


class _Probe:
    """A network as a function ``(N, *shape)`` to ``(N, D, P)`` in float64, values in their order."""

    def __init__(
        self, network: nn.Module | Network, spec: Spec, label: Tensor | None, contexts: list[Tensor]
    ) -> None:
        self.network, self.spec, self.label, self.contexts = network, spec, label, contexts

    @torch.no_grad()
    def __call__(self, x: Tensor, seed: int = 0) -> Tensor:
        # Each pass meets the same noise and the same statistics, whatever the passes before it left behind.
        buffers = list(self.network.buffers()) if isinstance(self.network, nn.Module) else []
        kept = [buffer.clone() for buffer in buffers]
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            if isinstance(self.network, Autoregressive):
                labels = None if self.label is None else self.label.expand(len(x))
                contexts = [context.expand(len(x), *context.shape[1:]) for context in self.contexts]
                output: object = self.network.conditionals(x, labels, contexts)
            else:
                output = self.network(x)
        for buffer, before in zip(buffers, kept, strict=True):
            buffer.copy_(before)
        return self._flatten(output, len(x))

    def _flatten(self, output: object, n: int) -> Tensor:
        if isinstance(output, Discrete):
            output = _parameters(output)
        shape = (n, *self.spec.shape)
        if not isinstance(output, Tensor):
            raise UserError(
                f"expected a tensor from the network, got {type(output).__name__}",
                "return the parameters of each value",
            )
        if tuple(output.shape) == shape:
            output = output.unsqueeze(-1)
        elif tuple(output.shape[:-1]) != shape:
            if self.spec.shape[0] != 1 or tuple(output.shape[2:]) != shape[2:]:
                raise UserError(
                    f"expected outputs of shape {(*shape, 'P')}, got {tuple(output.shape)}",
                    "parameters come last",
                )
            output = output.unsqueeze(1).movedim(2, -1)
        output = output.movedim(1, -2).flatten(1, -2)  # positions, then channels
        if not bool(output.isfinite().all()):
            at = int((~output.isfinite()).any(-1).any(0).nonzero()[0])
            raise UserError(
                f"expected numbers from the network, got NaN or infinity at output {at}",
                "a row of masked attention?",
            )
        return output

    def sees(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Whether each output moves when each value of the example ``x`` is changed, ``(D, D)``."""
        levels, size = self.spec.discrete_levels, self.spec.dims
        same = (
            x.expand(_BATCH, *x.shape[1:]).movedim(1, -1).flatten(1).clone()
        )  # in the order of the factorization
        before = self._flat(same)
        seen = torch.zeros(size, size, dtype=torch.bool)
        for inputs in torch.arange(size).split(_BATCH):
            changed, rows = same.clone(), torch.arange(len(inputs))
            by = torch.randint(1, levels, (len(inputs),), generator=generator)
            changed[rows, inputs] = (changed[rows, inputs] + by) % levels
            moved = _moved(before, self._flat(changed)).any(-1)
            seen[:, inputs] = moved[: len(inputs)].T
        return seen

    def leaks_across(self, x: Tensor, generator: torch.Generator) -> bool:
        """Whether the outputs of the first of the examples ``x`` depend on the others."""
        others = x.clone()
        others[1:] = torch.randint(self.spec.discrete_levels, others[1:].shape, generator=generator)
        return _differ(self(x)[0], self(others)[0])

    def _flat(self, values: Tensor) -> Tensor:
        return self(
            values.view(len(values), *self.spec.shape[1:], self.spec.shape[0]).movedim(-1, 1).contiguous()
        )


def _parameters(d: Discrete) -> Tensor:
    """All that a distribution depends on, ``(*batch_shape, P)``; of another kind its probabilities."""
    parts = [
        getattr(d, name)
        for name in ("logits", "loc", "log_scale")
        if isinstance(getattr(d, name, None), Tensor)
    ]
    if not parts:
        return d.log_pmf()
    return torch.cat([part if part.dim() > len(d.batch_shape) else part.unsqueeze(-1) for part in parts], -1)


def _moved(before: Tensor, after: Tensor) -> Tensor:
    """Where outputs differ by more than rounding."""
    return (before - after).abs() > _ROUNDING * before.abs().max()


def _differ(before: Tensor, after: Tensor) -> bool:
    return bool(_moved(before, after).any())


def _conditions(subject: object, generator: torch.Generator) -> tuple[Tensor | None, list[Tensor]]:
    """A label ``(1,)`` and contexts ``(1, ...)`` for a model of the library that takes them."""
    if not isinstance(subject, Autoregressive):
        return None, []
    classes = subject.sample_classes
    label = torch.randint(classes, (1,), generator=generator) if classes else None
    contexts = []
    for spec in subject.spec.contexts:
        shape = (1, *spec.shape)
        contexts.append(
            torch.randn(shape, generator=generator)
            if spec.levels is None
            else torch.randint(spec.levels, shape, generator=generator)
        )
    return label, contexts


def _randomized(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """A copy in float64 with other weights, none of them 0.

    Raises:
        UserError: the module cannot be copied.
    """
    try:
        module = copy.deepcopy(module).cpu().double()
    except (RuntimeError, TypeError) as error:
        raise UserError(
            f"expected a module that can be copied, got {type(module).__name__}: {error}",
            "torch.nn.utils.weight_norm cannot: use torch.nn.utils.parametrizations.weight_norm",
        ) from error
    with torch.no_grad():
        for p in module.parameters():
            if not p.requires_grad:  # a mask, or another constant
                continue
            noise = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            fan_in = math.prod(p.shape[1:]) if p.dim() > 1 else 4
            p.copy_(noise * math.sqrt(2 / max(1, fan_in)))
    return module


def _train_without_dropout(network: nn.Module) -> None:
    network.train()
    for part in network.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.p = 0.0
        elif isinstance(part, nn.MultiheadAttention | nn.RNNBase):
            part.dropout = 0.0


def _keep_statistics(network: nn.Module) -> None:
    """Let batch normalization take its running statistics, which tell what else training mode changes."""
    for part in network.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()
