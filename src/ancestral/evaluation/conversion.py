"""Sounds in another voice: their codes, decoded as those of another class."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ancestral.batch import Batch
from ancestral.capabilities import Converts
from ancestral.data import Dataset, Preparation, Sounds, load_sound
from ancestral.errors import UserError
from ancestral.evaluation.batches import together
from ancestral.evaluation.sampling import check_seed
from ancestral.evaluation.subject import Subject, Trained, undisturbed
from ancestral.model import Model
from ancestral.progress import bar

_TOGETHER = 64
"""Sounds that are decoded at once."""


@dataclass(frozen=True)
class Conversion:
    """Sounds, and what a model makes of their codes, on the CPU: integers ``(n, C, T)`` each."""

    originals: Tensor
    reconstructions: Tensor
    """By the voice of each one's own class, or of nobody in particular where that is not known."""
    converted: Tensor
    """By the voice that was asked for, with the same noise."""
    lengths: Tensor
    """How many of the T are each one's own, ``(n,)``; the rest is silence."""
    labels: Tensor | None
    """Classes of the originals, ``(n,)``; None where they are not known."""
    to: int
    """The class that they were converted to."""
    notes: tuple[str, ...] = ()
    """What was done to files to make them fit, in words, where anything was."""


@undisturbed
@torch.no_grad()
def convert(
    model: Trained,
    data: Dataset | Batch | Tensor | str | None = None,
    *,
    to: int | str,
    files: Sequence[str | Path] = (),
    split: str = "test",
    n: int | None = 4,
    seed: int = 0,
    preparation: Preparation | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> Conversion:
    """Sounds with the same codes in another voice (van den Oord et al., 2017, section 4.4).

    Args:
        model: a model whose decoder is told the speaker (``vqvae-sound``), a run or its directory, or a Hub
            name.
        data: a data set, its source, or sounds ``(N, C, T)``; a run's own data if None.
        to: the class whose voice they get, by its name or its number.
        files: of sounds, which are taken instead of data.
        split: ``train``, ``validation``, ``test`` or ``all``.
        n: how many sounds of the data, the first that are not of the class ``to`` already; all if None.
        seed: of the noise of a decoder that draws.
        preparation: how a source's data are prepared; as in the run, and to the model's spec, if None.
        device: where to compute; where a model is, else on the CPU, if None.
        progress: show a progress bar.

    Raises:
        UserError: the model is not told the speaker or knows one alone, there is no such class, the data do
            not fit it, none of them are of other voices, or a file is no sound.
    """
    subject = Subject.find(model, device)
    network, check = as_converting(subject.model), check_seed(seed)
    target = network.voice_of(to)
    notes: tuple[str, ...] = ()
    if files:
        if data is not None:
            raise UserError("expected data or files, got both", "leave one of them out")
        loaded, labels = [load_sound(file, network.spec) for file in files], None
        sounds = [x for x, _ in loaded]
        notes = tuple(f"{file}: {note}" for file, (_, note) in zip(files, loaded, strict=True) if note)
    else:
        if isinstance(data, Batch | Tensor):
            examples: Batch | Sounds = subject.examples(data, split)
        else:
            dataset = subject.dataset(data, preparation)
            examples = subject.with_own_labels(dataset.split(split), dataset)
        sounds, labels = _of_others(examples, target, n)
    codes = [network.to_codes(x[None].to(network.device)) for x in sounds]
    own = [x.shape[-1] for x in sounds]
    versions = [
        [y[..., :length] for y, length in zip(found, own, strict=True)]
        for found in (
            decoded(network, codes, labels, seed=check, what="reconstructing", show=progress),
            decoded(network, codes, [target] * len(codes), seed=check, what="converting", show=progress),
        )
    ]
    silence = network.spec.silence
    originals, reconstructions, converted = (together(some, silence) for some in (sounds, *versions))
    known = None if labels is None else torch.tensor(labels)
    return Conversion(originals, reconstructions, converted, torch.tensor(own), known, target, notes)


def as_converting(model: Model) -> Converts:
    """The model as one that converts. Raises UserError if it is none."""
    if not isinstance(model, Converts):
        problem = f"expected a model whose decoder is told the speaker, got {type(model).__name__}"
        raise UserError(problem, "train one: ancestral train vqvae-sound")
    return model


def _of_others(examples: Batch | Sounds, target: int, n: int | None) -> tuple[list[Tensor], list[int] | None]:
    """The first sounds ``(C, T)`` of other voices than the target, or of unknown ones, and their classes."""
    if n is not None and n < 1:
        raise UserError(f"expected at least 1 sound, got {n}", "ask for more")
    labels = examples.labels
    others = torch.arange(len(examples)) if labels is None else (labels != target).nonzero()[:, 0]
    if not len(others):
        problem = "expected sounds of other voices than the one to convert to, got none"
        raise UserError(problem, "name another voice, or other data")
    rows = others[:n].tolist()
    return [own_sound(examples, row) for row in rows], None if labels is None else labels[rows].tolist()


def own_sound(examples: Batch | Sounds, row: int) -> Tensor:
    """One sound without padding, ``(C, T)``."""
    one = examples[row : row + 1]
    return one.x[0] if one.lengths is None else one.x[0, :, : int(one.lengths)]


def decoded(
    model: Converts,
    codes: Sequence[tuple[Tensor, ...]],
    labels: Sequence[int] | None,
    *,
    seed: int,
    what: str,
    show: bool,
) -> list[Tensor]:
    """Sounds ``(C, T)`` of codes ``(1, M, L)`` of each level, which end where a code does; on the CPU.

    Those with as many codes are decoded together: nothing is padded. The noise follows the seed alone, and
    is the same whatever the classes.
    """
    groups: dict[int, list[int]] = {}
    for i, levels in enumerate(codes):
        groups.setdefault(levels[-1].shape[-1], []).append(i)
    parts = [rows[i : i + _TOGETHER] for rows in groups.values() for i in range(0, len(rows), _TOGETHER)]
    places = [codes[rows[0]][-1].shape[-1] * len(rows) for rows in parts]
    found: dict[int, Tensor] = {}

    def told(advance: Callable[[float], None], done: int, more: int, share: float) -> None:
        advance((done + share * more) / sum(places))

    with bar(what, show=show) as advance:
        for k, rows in enumerate(parts):
            y = model.decode(
                tuple(torch.cat(level) for level in zip(*(codes[row] for row in rows), strict=True)),
                None if labels is None else torch.tensor([labels[row] for row in rows], device=model.device),
                generator=torch.Generator(model.device).manual_seed(seed),
                progress=partial(told, advance, sum(places[:k]), places[k]),
            )
            found |= dict(zip(rows, y.cpu(), strict=True))
    return [found[i] for i in range(len(codes))]
