"""Samples and completions of a trained model, in batches; classifier-based rejection of samples.

Rejection: Razavi, van den Oord and Vinyals, 2019, "Generating Diverse High-Fidelity Images with VQ-VAE-2",
section 3.3, https://arxiv.org/abs/1906.00446.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ancestral.batch import Batch
from ancestral.capabilities import Completes, broadcast_known
from ancestral.configuration import Range
from ancestral.data import Dataset, Preparation
from ancestral.errors import UserError
from ancestral.evaluation.subject import Subject, Trained, undisturbed
from ancestral.memory import check_room
from ancestral.model import Model
from ancestral.progress import bar
from ancestral.sampling import Sampling
from ancestral.spec import Spec

_BATCH = 64
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


@undisturbed
def sample(
    model: Trained,
    n: int = 64,
    labels: Sequence[int | str] = (),
    *,
    contexts: Sequence[Tensor] = (),
    keep: float = 1.0,
    gate: Gate | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    truncation: float | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Draw ``n`` examples in batches: ``(n, *shape)`` on the CPU, and labels ``(n,)`` if any are known.

    They are if some were given, or if samples are rejected by their class.

    Args:
        model: a model, a run or its directory, or a Hub name.
        n: how many.
        labels: classes by number or by name, repeated in turn until there are ``n``; without them the model
            draws them at random.
        contexts: what else the model is given, ``(n, *context.shape)`` for each of ``spec.contexts``.
        keep: of each class, the share of what is drawn that stays: those of which the gate is surest. 1 keeps
            all, without a gate.
        gate: the classifier that ``keep`` below 1 asks.
        temperature: 1 samples the model; lower values give likelier, less diverse samples.
        top_k: draw from the k likeliest levels of each value (models that draw values in order).
        top_p: draw from the likeliest levels that together reach probability p (the same models).
        truncation: keep the latents this near to their mean (models that say so).
        seed: the same seed gives the same samples on the same machine.
        device: where to compute; where a model is, else on the CPU, if None.
        progress: show a progress bar.

    Raises:
        UserError: n < 1, an option out of its range or not for this model, unfit labels, contexts or gate.
    """
    if n < 1:
        raise UserError(f"expected at least 1 sample, got {n}", "raise --n")
    network = Subject.find(model, device).model
    network.check_trained()
    network.check_room(n)
    check_keep(network, keep)
    chosen = None if keep == 1 else check_gate(network, gate)
    classes = None
    if len(labels):
        given = network.classes_of([labels] if isinstance(labels, str) else labels)
        classes = given.repeat(-(-n // len(given)))[:n]
    network.spec.check_contexts(contexts, n)
    generator = torch.Generator(network.device).manual_seed(check_seed(seed))
    options = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, truncation=truncation)
    with bar("sampling", show=progress) as advance:
        if chosen is None:
            parts = draw(
                network, n, classes, options, contexts=contexts, generator=generator, advance=advance
            )
            return torch.cat(list(parts)), classes
        if classes is None:
            device = network.device
            classes = torch.randint(network.sample_classes, (n,), device=device, generator=generator).cpu()
        drawn = candidates(classes, keep)
        parts = draw(network, len(drawn), drawn, options, generator=generator, advance=advance)
        return surest(chosen, parts, drawn, classes), classes


def draw(
    model: Model,
    n: int,
    labels: Tensor | None,
    options: Sampling,
    *,
    contexts: Sequence[Tensor] = (),
    generator: torch.Generator,
    advance: Callable[[float], None],
    size: int = _BATCH,
) -> Iterator[Tensor]:
    """``n`` examples on the CPU, ``size`` of them after others; ``advance`` is told the share."""

    def batch(part: slice, within: Callable[[float], None]) -> Tensor:
        return model.sample(
            part.stop - part.start,
            None if labels is None else labels[part],
            contexts=[context[part] for context in contexts],
            **asdict(options),
            generator=generator,
            progress=within,
        )

    return _in_parts(n, batch, advance, size)


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
        held.append((x, own, _probability(gate, x, own)))
        if sum(len(one) for one, _, _ in held) >= 2 * len(wanted):
            held = [best()]
    x, own, _ = best()
    placed = torch.empty_like(x)
    placed[wanted.argsort(stable=True)] = x[own.argsort(stable=True)]
    return placed


def _probability(gate: Gate, x: Tensor, labels: Tensor) -> Tensor:
    """The probability ``(N,)`` that each example is of its class, on the CPU."""
    probabilities = gate.probabilities(x.to(gate.device)).float().cpu()
    shape, expected = tuple(probabilities.shape), (len(x), gate.spec.classes)
    if shape != expected or not bool(probabilities.isfinite().all()):
        got = shape if shape != expected else "NaN or infinity"
        problem = f"expected probabilities {expected} of the gate, got {got}"
        raise UserError(problem, "use another classifier")
    return probabilities.gather(1, labels[:, None])[:, 0]


@undisturbed
def complete(
    model: Trained,
    data: Dataset | Batch | Tensor | str | None = None,
    known: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    split: str = "test",
    n: int | None = 16,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    preparation: Preparation | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> tuple[Tensor, Tensor]:
    """Examples of a split, and the same with the values that are not known drawn anew: ``(n, *shape)`` both.

    Each value is drawn given all that come before it in raster order; known ones that come later have no
    influence.

    Args:
        model: a model, a run or its directory, or a Hub name.
        data: a data set, its source, or examples, as a tensor ``(N, *shape)`` or with contexts as a batch; a
            run's own data if None.
        known: which values stay, boolean, broadcast to ``(n, *shape)``; the upper half if None.
        labels: classes ``(n,)`` for a model that draws by class; those of the run's own data, and random
            ones for other data, if None.
        split: ``train``, ``validation``, ``test`` or ``all``.
        n: how many examples, from the first on; all if None.
        temperature: 1 samples the model; lower values give likelier, less diverse samples.
        top_k: draw from the k likeliest levels of each value.
        top_p: draw from the likeliest levels that together reach probability p.
        seed: the same seed gives the same values on the same machine.
        preparation: how a source's data are prepared; as in the run, and to the model's spec, if None.
        device: where to compute; where a model is, else on the CPU, if None.
        progress: show a progress bar.

    Raises:
        UserError: the model does not complete, the data do not fit it, or an argument is out of its range
            or of another shape.
    """
    subject = Subject.find(model, device)
    network = subject.model
    if not isinstance(network, Completes):
        problem = f"expected a model that completes examples, got {type(network).__name__}"
        raise UserError(problem, "train an autoregressive model: ancestral train pixelcnnpp")
    network.check_trained()
    examples = subject.examples(data, split, n, preparation)
    if known is None:
        known = upper_rows(network.spec, network.spec.shape[1] // 2)
    given = broadcast_known(known, tuple(examples.x.shape))
    if labels is None and data is None and network.sample_classes:
        labels = examples.labels  # other data may mean other things by the same numbers
    if labels is not None:
        network.check_labels(labels, len(examples))
    generator = torch.Generator(network.device).manual_seed(check_seed(seed))

    def batch(part: slice, within: Callable[[float], None]) -> Tensor:
        return network.complete(
            examples.x[part],
            given[part],
            None if labels is None else labels[part],
            contexts=[context[part] for context in examples.contexts],
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            generator=generator,
            progress=within,
        )

    with bar("completing", show=progress) as advance:
        return examples.x, torch.cat(list(_in_parts(len(examples), batch, advance)))


def upper_rows(spec: Spec, rows: int) -> Tensor:
    """The values of the first rows, as ``complete`` takes them: boolean, of the spec's shape.

    Raises UserError if none is left to draw.

    >>> upper_rows(Spec(shape=(1, 3, 2)), 1)
    tensor([[[ True,  True],
             [False, False],
             [False, False]]])
    """
    if not 0 <= rows < spec.shape[1]:
        raise UserError(
            f"expected to keep 0..{spec.shape[1] - 1} rows, got {rows}", "leave at least one row to draw"
        )
    return (torch.arange(spec.shape[1]) < rows).view(-1, *[1] * (len(spec.shape) - 2)).expand(spec.shape)


def _in_parts(
    n: int,
    draw: Callable[[slice, Callable[[float], None]], Tensor],
    advance: Callable[[float], None],
    size: int = _BATCH,
) -> Iterator[Tensor]:
    """``n`` examples on the CPU, a part of them drawn after another; ``advance`` is told the share."""
    for start in range(0, n, size):
        part = slice(start, min(start + size, n))

        def within(share: float, part: slice = part) -> None:
            advance((part.start + share * (part.stop - part.start)) / n)

        yield draw(part, within).cpu()
        within(1.0)


def check_seed(seed: int) -> int:
    """The seed. Raises UserError unless torch takes it."""
    if not 0 <= seed < 2**63:
        raise UserError(f"expected a seed of 0 or more, below 2^63, got {seed}", "try 0")
    return seed
