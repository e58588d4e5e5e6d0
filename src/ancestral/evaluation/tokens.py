"""Examples to code maps, and back."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ancestral.batch import Batch
from ancestral.capabilities import Tokenizer
from ancestral.data import Dataset, Preparation, Sounds
from ancestral.errors import UserError
from ancestral.evaluation.batches import alone, batches, together
from ancestral.evaluation.code_parquet import Codes, Timing
from ancestral.evaluation.lengths import strides
from ancestral.evaluation.subject import Subject, Trained, undisturbed
from ancestral.memory import check_room
from ancestral.model import Model
from ancestral.pipeline import computed
from ancestral.progress import watched
from ancestral.stages import owned
from ancestral.weights import state_checksum

_GIVE = "give what tokenize gave"


def as_tokenizer(model: Model) -> Tokenizer:
    """The model as a tokenizer. Raises UserError if it is none."""
    if not isinstance(model, Tokenizer):
        name = "vqvae-sound" if model.spec.domain == "sound" else "vqvae"
        raise UserError(
            f"expected a model with code maps, got {type(model).__name__}",
            f"train a tokenizer: ancestral train {name}",
        )
    return model


@undisturbed
@torch.no_grad()
def tokenize(
    model: Trained,
    data: Dataset | Batch | Tensor | str | None = None,
    *,
    split: str = "train",
    preparation: Preparation | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """The code maps of a split, ``(N, M, h, w)`` for each level, and their labels ``(N,)`` if there are any.

    Of sounds they are ``(N, M, L)``, padded with 0 to the longest's.

    Args:
        model: a model, a run or its directory, or a Hub name.
        data: a data set, its source, or examples ``(N, *shape)``; a run's own data if None.
        split: ``train``, ``validation``, ``test`` or ``all``.
        preparation: how a source's data are prepared; as in the run, and to the model's spec, if None.
        device: where to compute; where a model is, else on the CPU, if None.
        progress: show a progress bar.

    Raises:
        UserError: the model has no code maps, or the data do not fit it.
    """
    found = tokenized(Subject.find(model, device), data, split, preparation, show=progress)
    return found.levels, found.labels


@torch.no_grad()
def tokenized(
    subject: Subject,
    data: Dataset | Batch | Tensor | str | None,
    split: str,
    preparation: Preparation | None = None,
    *,
    show: bool,
) -> Codes:
    """What ``tokenize`` gives, and how long sounds are."""
    tokenizer = as_tokenizer(subject.model)
    if tokenizer.spec.domain != "sound" or isinstance(data, Tensor):
        examples = subject.examples(data, split, None, preparation)
        return Codes(encode(tokenizer, examples.x, show=show), examples.labels)
    whole: Batch | Sounds
    if isinstance(data, Batch):
        whole = subject.examples(data, split)
    else:  # never all of them as long as the longest
        dataset: Dataset[Any] = subject.dataset(data, preparation)
        whole = dataset.split(split)
    return Codes.cat(list(encoded_sounds(tokenizer, whole, show=show)))


def encode(tokenizer: Tokenizer, x: Tensor, *, show: bool) -> tuple[Tensor, ...]:
    """The code maps of examples ``(N, *shape)``: ``(N, M, h, w)`` of each level's dtype, on the CPU."""
    return tuple(map(torch.cat, zip(*encoded(tokenizer, x, show=show), strict=True)))


def encode_sounds(tokenizer: Tokenizer, sounds: Batch | Sounds, *, show: bool) -> tuple[list[Tensor], ...]:
    """The codes of each sound as long as it is, ``(M, L)`` of each level's dtype, on the CPU."""
    each = [[level[0] for level in found.levels] for found in encoded_sounds(tokenizer, sounds, show=show)]
    return tuple(map(list, zip(*each, strict=True)))


@torch.no_grad()
def encoded_sounds(tokenizer: Tokenizer, sounds: Batch | Sounds, *, show: bool) -> Iterator[Codes]:
    """The codes of one sound after another, ``(1, M, L)`` of each level's dtype, on the CPU."""
    for sound in alone(sounds, "tokenizing", show=show):
        found = zip(tokenizer.to_codes(sound.x.to(tokenizer.device)), tokenizer.code_specs(), strict=True)
        levels = tuple(level.to(spec.dtype).cpu() for level, spec in found)
        yield Codes(levels, sound.labels, torch.tensor([sound.x.shape[-1]]))


def encoded(tokenizer: Tokenizer, x: Tensor, *, show: bool) -> Iterator[tuple[Tensor, ...]]:
    """What ``encode`` gives, a batch after another. The examples are not checked again."""
    device, specs = tokenizer.device, tokenizer.code_specs()

    @torch.no_grad()
    def codes(part: Batch) -> dict[str, Tensor]:
        levels = zip(tokenizer.to_codes(part.x), specs, strict=True)
        return {f"level{i}": level.to(spec.dtype) for i, (level, spec) in enumerate(levels)}

    parts = batches(len(x), "tokenizing", device=device, show=show, dims=tokenizer.spec.dims)
    for part in computed(Batch(x), parts, codes, device):
        yield tuple(part.values())


@undisturbed
@torch.no_grad()
def detokenize(
    model: Trained,
    codes: tuple[Tensor, ...],
    labels: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> Tensor:
    """Examples ``(N, *shape)`` from code maps; sounds are padded with silence to the longest.

    Args:
        model: a model, a run or its directory, or a Hub name.
        codes: a map ``(N, M, h, w)``, of sounds ``(N, M, L)``, for each level (``read_codes`` reads them from
            a file).
        labels: of a model of sounds whose decoder is told the class: classes ``(N,)``.
        lengths: how many samples each sound has, ``(N,)``; as many as its codes cover if None.
        device: where to compute; where a model is, else on the CPU, if None.
        progress: show a progress bar.

    Raises:
        UserError: the model has no code maps, or codes, labels or lengths are none of this model's.
    """
    tokenizer = as_tokenizer(Subject.find(model, device).model)
    tokenizer.check_codes(codes)
    n, spec, timing = len(codes[0]), tokenizer.spec, timing_of(tokenizer)
    remedy = "decode fewer (--n), or one part after another (--format shards)"
    if timing is not None:
        own = _sound_lengths(timing, codes, lengths)
        size = n * int(own.max()) * spec.dtype.itemsize
        check_room(size, f"{n:,} decoded sounds as long as the longest", remedy)
        if labels is not None:
            spec.check_labels(labels, n)
        return _decoded_sounds(tokenizer, timing, Codes(codes, labels, own), show=progress)
    check_room(n * spec.dims * spec.dtype.itemsize, f"{n:,} decoded examples", remedy)
    parts = batches(n, "decoding", device=tokenizer.device, show=progress, dims=spec.dims)
    return torch.cat(
        [
            tokenizer.detokenize(tuple(level[part].to(tokenizer.device).long() for level in codes)).cpu()
            for part in parts
        ]
    )


def _decoded_sounds(tokenizer: Tokenizer, timing: Timing, codes: Codes, *, show: bool) -> Tensor:
    """Sounds from their codes, each alone, so that it is the same whatever is decoded beside it."""
    decoded, device = [], tokenizer.device
    for i in watched(range(len(codes.levels[0])), "decoding", show=show):
        levels, labels, length = codes.some(slice(i, i + 1))
        assert length is not None
        own = [level[..., : int(timing.counts(length, k))] for k, level in enumerate(levels)]
        given = tuple(level.to(device).long() for level in own)
        x = tokenizer.decoded(given, None if labels is None else labels.to(device))
        decoded.append(x[0, ..., : int(length)].cpu())
    return together(decoded, tokenizer.spec.silence)


def _sound_lengths(timing: Timing, codes: Sequence[Tensor], lengths: Tensor | None) -> Tensor:
    """How many samples sounds have, ``(N,)``: what is said, else as many as all their codes cover.

    Raises UserError if codes of different levels, or lengths, do not go together.
    """
    covered = [level.shape[-1] * stride for level, stride in zip(codes, timing.strides, strict=True)]
    if len(set(covered)) > 1:
        got = ", ".join(map(str, covered))
        raise UserError(f"expected codes of all levels for the same samples, got {got}", _GIVE)
    if lengths is None:
        return torch.full((len(codes[0]),), covered[0])
    if tuple(lengths.shape) != (len(codes[0]),) or lengths.is_floating_point():
        got = f"{str(lengths.dtype).removeprefix('torch.')} of shape {tuple(lengths.shape)}"
        raise UserError(f"expected {len(codes[0])} integers as lengths of the sounds, got {got}", _GIVE)
    least, most = int(lengths.min()), int(lengths.max())
    if least < 1 or most > covered[0]:
        raise UserError(f"expected lengths of 1..{covered[0]} samples, got {least}..{most}", _GIVE)
    return lengths.long().cpu()


def timing_of(tokenizer: Tokenizer) -> Timing | None:
    """How the codes of a tokenizer of sounds lie in time; None of other examples."""
    if tokenizer.spec.domain != "sound":
        return None
    return Timing(rate=tokenizer.spec.rate or 0, strides=strides(tokenizer))


def codes_checksum(tokenizer: Tokenizer) -> str:
    """Checksum of the weights that make codes and decode them.

    What later stages train on prepared data, which are codes, is not among them: with another prior the codes
    are the same.
    """
    stages = tokenizer.stages()
    priors = [stage for stage in stages[1:] if stage.prepare is not None]
    of_priors, of_others = (
        owned(tokenizer, [module for stage in some for module in stage.modules])
        for some in (priors, [stage for stage in stages if stage not in priors])
    )
    return state_checksum(tokenizer, tokenizer.state_dict().keys() - (of_priors - of_others))
