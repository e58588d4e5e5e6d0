"""Classifier-based rejection of samples: of each class, those stay of which a classifier is surest.

Razavi, van den Oord and Vinyals, 2019, "Generating Diverse High-Fidelity Images with VQ-VAE-2", section 3.3,
https://arxiv.org/abs/1906.00446.
"""

import math
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ancestral.configuration import Range
from ancestral.errors import UserError
from ancestral.evaluation.subject import undisturbed
from ancestral.memory import check_room
from ancestral.model import Model
from ancestral.spec import Spec

KEEP = Range(above=0, most=1)
"""The shares of the candidates that rejection may keep."""


@runtime_checkable
class Gate(Protocol):
    """What tells how probable it is that an example is of a class: a classifier."""

    @property
    def spec(self) -> Spec:
        """The examples that it knows, and how many classes."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    def probabilities(self, x: Tensor) -> Tensor:
        """p(class | x) of examples ``(N, *spec.shape)``: ``(N, classes)``."""


def check_keep(model: Model, keep: float) -> None:
    """Raise UserError unless this share of the samples of a model may be kept."""
    KEEP.check("keep", keep)
    if keep < 1 and not model.sample_classes:
        raise UserError(
            f"expected keep 1, got {keep:g}: this {type(model).__name__} does not draw by class",
            "leave it out, or train a class-conditional model on data with classes",
        )
    if keep < 1 and model.spec.contexts:
        problem = f"expected keep 1, got {keep:g}: this {type(model).__name__} is given contexts"
        raise UserError(problem, "leave it out")


def check_gate(model: Model, gate: object) -> Gate:
    """The gate. Raises UserError unless it is one for the samples of the model."""
    if not isinstance(gate, Gate):
        got = "none" if gate is None else f"a {type(gate).__name__}"
        problem = f"expected a gate with probabilities of classes for keep below 1, got {got}"
        raise UserError(problem, "give a classifier of the data as gate, or leave keep out")
    own, its = model.spec, gate.spec
    if (own.shape, own.levels) != (its.shape, its.levels):
        raise UserError(
            f"expected a gate for examples of shape {own.shape} with {own.levels} levels, got one for "
            f"{its.shape} with {its.levels}",
            "use a classifier of the model's own data",
        )
    if model.sample_classes != its.classes:
        problem = f"expected a gate for the model's {model.sample_classes} classes, got one for {its.classes}"
        raise UserError(problem, "use a classifier of the model's own data")
    names = tuple(getattr(gate, "classes", ()))  # which a gate that is no Model need not have
    for name, its_name in zip(model.classes, names, strict=False):
        if name != its_name:
            problem = f"expected a gate for the model's classes, got one with {its_name} for {name}"
            raise UserError(problem, "use a classifier of the model's own data")
    return gate


def candidates(labels: Tensor, keep: float) -> Tensor:
    """The classes to draw, of which the share ``keep`` of each leaves at least ``labels`` ``(N,)``.

    >>> candidates(torch.tensor([2, 0, 2]), 0.5)
    tensor([0, 0, 2, 2, 2, 2])
    """
    classes, counts = labels.unique(return_counts=True)
    drawn = [math.ceil(min(count / keep, 2.0**62)) for count in counts.tolist()]
    check_room(8 * sum(drawn), f"{sum(drawn):,} candidates", "raise keep")
    return classes.repeat_interleave(torch.tensor(drawn))


def kept(probability: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Which examples stay: of class c the ``counts[c]`` of the highest probability; indices that ascend.

    Args:
        probability: of each example's own class, ``(N,)``.
        labels: the class of each, ``(N,)``.
        counts: how many of each class stay, ``(classes,)``; all of a class of which there are fewer. Of
            equally probable ones the first do.

    >>> probability, labels = torch.tensor([0.1, 0.9, 0.5, 0.2, 0.7]), torch.tensor([0, 0, 0, 1, 1])
    >>> kept(probability, labels, torch.tensor([2, 1]))
    tensor([1, 2, 4])
    """
    likeliest = probability.argsort(descending=True, stable=True)
    by_class = likeliest[labels[likeliest].argsort(stable=True)]
    sizes = labels.bincount(minlength=len(counts))
    rank = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[labels[by_class]]
    return by_class[rank < counts[labels[by_class]]].sort().values


@undisturbed
@torch.no_grad()
def surest(gate: Gate, parts: Iterable[Tensor], labels: Tensor, wanted: Tensor) -> Tensor:
    """Of candidates those of which the gate is surest: ``(N, *shape)``, of the classes ``wanted``, in order.

    Those of a class are in the order in which they were drawn. About twice as many as are wanted are in
    memory.

    Args:
        gate: what tells their probability.
        parts: the candidates, on the CPU, some after others.
        labels: the classes of all of them.
        wanted: a class for each that stays, ``(N,)``.

    Raises:
        UserError: the gate gives anything but a probability for each class.
    """
    if isinstance(gate, Model):
        gate.eval()
    counts = wanted.bincount(minlength=gate.spec.classes)
    held: list[tuple[Tensor, Tensor, Tensor]] = []

    def best() -> tuple[Tensor, Tensor, Tensor]:
        x, own, probability = (torch.cat(tensors) for tensors in zip(*held, strict=True))
        stay = kept(probability, own, counts)
        return x[stay], own[stay], probability[stay]

    seen = 0
    for x in parts:
        own = labels[seen : seen + len(x)]
        seen += len(x)
        held.append((x, own, probability_of(gate, x, own)))
        if sum(len(one) for one, _, _ in held) >= 2 * len(wanted):
            held = [best()]
    x, own, _ = best()
    placed = torch.empty_like(x)
    placed[wanted.argsort(stable=True)] = x[own.argsort(stable=True)]
    return placed


def probability_of(gate: Gate, x: Tensor, labels: Tensor) -> Tensor:
    """The probability ``(N,)`` that each example is of its class, on the CPU."""
    probabilities = gate.probabilities(x.to(gate.device)).float().cpu()
    shape, expected = tuple(probabilities.shape), (len(x), gate.spec.classes)
    if shape != expected or not bool(probabilities.isfinite().all()):
        got = shape if shape != expected else "NaN or infinity"
        problem = f"expected probabilities {expected} of the gate, got {got}"
        raise UserError(problem, "use another classifier")
    return probabilities.gather(1, labels[:, None])[:, 0]
