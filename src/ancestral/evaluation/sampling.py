"""Samples and completions of a trained model, in batches."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from ancestral.batch import Batch
from ancestral.capabilities import Completes, broadcast_known
from ancestral.data import Dataset, Preparation
from ancestral.errors import UserError
from ancestral.evaluation.lengths import long_enough, samples_of
from ancestral.evaluation.rejection import Gate, candidates, check_gate, check_keep, surest
from ancestral.evaluation.subject import Subject, Trained, undisturbed
from ancestral.model import Model
from ancestral.pipeline import part_size
from ancestral.progress import bar
from ancestral.sampling import PerLevel, Sampling
from ancestral.spec import Spec

_BATCH = 64


@undisturbed
def sample(
    model: Trained,
    n: int = 64,
    labels: Sequence[int | str] = (),
    *,
    contexts: Sequence[Tensor] = (),
    seconds: float | None = None,
    keep: float = 1.0,
    gate: Gate | None = None,
    temperature: PerLevel[float] = 1.0,
    top_k: PerLevel[int | None] = None,
    top_p: PerLevel[float | None] = None,
    truncation: float | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Draw ``n`` examples in batches: ``(n, *shape)`` on the CPU, and labels ``(n,)`` if any are known.

    They are if some were given, or if samples are rejected by their class. Rows of a table are as the file
    has them, where those of ``Model.sample`` are standardized.

    Args:
        model: a model, a run or its directory, or a Hub name.
        n: how many.
        labels: classes by number or by name, repeated in turn until there are ``n``; without them the model
            draws them at random.
        contexts: what else the model is given, ``(n, *context.shape)`` for each of ``spec.contexts``.
        seconds: how long sounds are, of a model of sounds of any length; as long as in its training if None.
        keep: of each class, the share of what is drawn that stays: those of which the gate is surest. 1 keeps
            all, without a gate.
        gate: the classifier that ``keep`` below 1 asks.
        temperature: 1 samples the model; lower values give likelier, less diverse samples. It and the next
            two may have a value for each level of a model with levels of codes, coarse to fine; of top_k
            and top_p None leaves a level alone.
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
    subject = Subject.find(model, device)
    subject.check_trained()
    length = None if seconds is None else samples_of(subject.model, seconds)
    network = subject.model if length is None else long_enough(subject.model, length)
    network.check_room(n)
    check_keep(network, keep)
    chosen = None if keep == 1 else check_gate(network, gate)
    classes = repeated(network, labels, n)
    network.spec.check_contexts(contexts, n)
    generator = torch.Generator(network.device).manual_seed(check_seed(seed))
    options = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, truncation=truncation)
    size = part_size(network.spec.dims, _BATCH) if network.spec.sequential else _BATCH
    with bar("sampling", show=progress) as advance:
        how: dict[str, Any] = {"generator": generator, "advance": advance, "size": size, "length": length}
        if chosen is None:
            parts = draw(network, n, classes, options, contexts=contexts, **how)
            return torch.cat(list(parts)), classes
        if classes is None:
            device = network.device
            classes = torch.randint(network.sample_classes, (n,), device=device, generator=generator).cpu()
        drawn = candidates(classes, keep)
        parts = draw(network, len(drawn), drawn, options, **how)
        return surest(chosen, parts, drawn, classes), classes


def repeated(model: Model, labels: Sequence[int | str], n: int) -> Tensor | None:
    """Classes by number or by name, one after another until there are ``n``; None without labels."""
    if not len(labels):
        return None
    given = model.classes_of([labels] if isinstance(labels, str) else labels)
    return given.repeat(-(-n // len(given)))[:n]


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
    length: int | None = None,
) -> Iterator[Tensor]:
    """``n`` examples on the CPU, ``size`` of them after others; ``advance`` is told the share.

    Rows of a table are as the file has them; sounds are cut to ``length`` samples.
    """

    def batch(part: slice, within: Callable[[float], None]) -> Tensor:
        x = model.sample(
            part.stop - part.start,
            None if labels is None else labels[part],
            contexts=[context[part] for context in contexts],
            **asdict(options),
            generator=generator,
            progress=within,
        )
        if length is not None:
            x = x[..., :length].clone()  # so that what is cut off is not kept
        return x if model.columns is None else model.columns.restored(x.cpu())

    return _in_parts(n, batch, advance, size)


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
    network = as_completing(subject.model)
    subject.check_trained()
    examples = subject.examples(data, split, n, preparation)
    if examples.lengths is not None and not bool((examples.lengths == examples.x.shape[-1]).all()):
        problem = "expected examples of one length to complete, got sounds of several"
        raise UserError(problem, "complete one of them, or use continue_sound")
    network = long_enough(network, examples.x.shape[-1])
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


def as_completing(model: Model) -> Completes:
    """The model as one that completes. Raises UserError if it is none."""
    if not isinstance(model, Completes):
        problem = f"expected a model that completes examples, got {type(model).__name__}"
        name = "wavenet" if model.spec.domain == "sound" else "pixelcnnpp"
        raise UserError(problem, f"train an autoregressive model: ancestral train {name}")
    return model


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
