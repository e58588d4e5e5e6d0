"""Examples to code maps, and back."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ancestral.batch import Batch
from ancestral.capabilities import Tokenizer
from ancestral.data import Dataset, Preparation, Sounds
from ancestral.errors import UserError
from ancestral.evaluation.batches import WHOLE, batches
from ancestral.evaluation.subject import Subject, Trained, undisturbed
from ancestral.memory import check_room
from ancestral.model import Model
from ancestral.pipeline import computed
from ancestral.stages import owned
from ancestral.weights import state_checksum


def as_tokenizer(model: Model) -> Tokenizer:
    """The model as a tokenizer. Raises UserError if it is none."""
    if not isinstance(model, Tokenizer):
        raise UserError(
            f"expected a model with code maps, got {type(model).__name__}",
            "train a tokenizer: ancestral train vqvae",
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
    subject = Subject.find(model, device)
    tokenizer = as_tokenizer(subject.model)
    examples = subject.examples(data, split, None, preparation)
    return encode(tokenizer, examples.x, show=progress), examples.labels


def encode(tokenizer: Tokenizer, x: Tensor, *, show: bool) -> tuple[Tensor, ...]:
    """The code maps of examples ``(N, *shape)``: ``(N, M, h, w)`` of each level's dtype, on the CPU."""
    return tuple(map(torch.cat, zip(*encoded(tokenizer, x, show=show), strict=True)))


def encode_sounds(tokenizer: Tokenizer, sounds: Sounds, *, show: bool) -> tuple[list[Tensor], ...]:
    """The codes of each sound as long as it is, ``(M, L)`` of each level's dtype, on the CPU."""
    levels: tuple[list[Tensor], ...] = tuple([] for _ in tokenizer.code_specs())
    for part in batches(len(sounds), "tokenizing", device=tokenizer.device, show=show, dims=WHOLE):
        found = tokenizer.to_codes(sounds[part].x.to(tokenizer.device))
        for level, codes, spec in zip(levels, found, tokenizer.code_specs(), strict=True):
            level.append(codes[0].to(spec.dtype).cpu())
    return levels


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
    *,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> Tensor:
    """Examples ``(N, *shape)`` from code maps.

    Args:
        model: a model, a run or its directory, or a Hub name.
        codes: a map ``(N, M, h, w)`` for each level (``read_codes`` reads them from a file).
        device: where to compute; where a model is, else on the CPU, if None.
        progress: show a progress bar.

    Raises:
        UserError: the model has no code maps, or the codes are not of this model's shape and range.
    """
    tokenizer = as_tokenizer(Subject.find(model, device).model)
    tokenizer.check_codes(codes)
    n, spec = len(codes[0]), tokenizer.spec
    size = n * spec.dims * spec.dtype.itemsize
    check_room(
        size, f"{n:,} decoded examples", "decode fewer (--n), or one part after another (--format shards)"
    )
    parts = batches(n, "decoding", device=tokenizer.device, show=progress, dims=spec.dims)
    return torch.cat(
        [
            tokenizer.detokenize(tuple(level[part].to(tokenizer.device).long() for level in codes)).cpu()
            for part in parts
        ]
    )


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
