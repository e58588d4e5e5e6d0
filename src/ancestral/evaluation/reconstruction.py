"""Originals and a model's versions of them."""

from collections.abc import Callable

import torch
from torch import Tensor

from ancestral.batch import Batch
from ancestral.capabilities import Lengthens, Reconstructs
from ancestral.configuration import Range
from ancestral.data import Dataset, Preparation
from ancestral.errors import UserError
from ancestral.evaluation.batches import alone, batches, together
from ancestral.evaluation.lengths import long_enough
from ancestral.evaluation.sampling import check_seed
from ancestral.evaluation.subject import Subject, Trained, undisturbed
from ancestral.evaluation.tokens import as_tokenizer
from ancestral.model import Model


@undisturbed
@torch.no_grad()
def reconstruct(
    model: Trained,
    data: Dataset | Batch | Tensor | str | None = None,
    *,
    split: str = "test",
    n: int | None = 32,
    levels: int | None = None,
    seed: int = 0,
    preparation: Preparation | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> tuple[Tensor, Tensor]:
    """Examples of a split and the model's versions of them: integers ``(n, *shape)`` both, on the CPU.

    Sounds come one by one, as long as they are, and both are padded with silence to the longest; a decoder
    that is told the class is told each one's own, where it is known.

    Args:
        model: a model, a run or its directory, or a Hub name.
        data: a data set, its source, or examples, as a tensor ``(N, *shape)`` or, with labels and the lengths
            of sounds, as a batch; a run's own data if None.
        split: ``train``, ``validation``, ``test`` or ``all``.
        n: how many examples, from the first on; all if None.
        levels: of a tokenizer, how many levels of codes are used, from the coarsest on; all if None. The
            finer ones are missing where the decoder was trained to do without (``Tokenizer.progressive``),
            else drawn from their priors.
        seed: of what is drawn.
        preparation: how a source's data are prepared; as in the run, and to the model's spec, if None.
        device: where to compute; where a model is, else on the CPU, if None.
        progress: show a progress bar.

    Raises:
        UserError: the model does not reconstruct or has fewer levels, or the data do not fit it.
    """
    subject = Subject.find(model, device)
    network = as_reconstructing(subject.model)
    version = _version(subject, levels, seed)
    examples = subject.examples(data, split, n, preparation)
    x, place, what = examples.x, network.device, "reconstructing"
    if network.spec.domain == "sound" and isinstance(network, Lengthens):
        versions = [version(sound.to(place))[0].cpu() for sound in alone(examples, what, show=progress)]
        longest = max(version.shape[-1] for version in versions)
        return x[..., :longest], together(versions, network.spec.silence)
    parts = batches(len(x), what, device=place, show=progress, dims=network.spec.dims)
    return x, torch.cat([version(Batch(x[part].to(place))).cpu() for part in parts])


def as_reconstructing(model: Model) -> Reconstructs:
    """The model as one that reconstructs. Raises UserError if it is none."""
    if not isinstance(model, Reconstructs):
        problem = f"expected a model that reconstructs, got {type(model).__name__}"
        raise UserError(problem, "use sample instead")
    return model


def _version(subject: Subject, levels: int | None, seed: int) -> Callable[[Batch], Tensor]:
    """What makes of a batch the model's version of it: what the first levels of its codes say about it."""
    network = as_reconstructing(subject.model)
    if levels is not None:
        most = len(as_tokenizer(network).code_specs())
        Range(least=1, most=most).check("levels", levels)
        if levels < most:
            return _of_levels(subject, levels, seed)
    return lambda batch: network.version(batch.x, batch.labels)


def _of_levels(subject: Subject, levels: int, seed: int) -> Callable[[Batch], Tensor]:
    tokenizer = as_tokenizer(subject.model)
    if tokenizer.progressive:
        return lambda batch: tokenizer.detokenize(tokenizer.tokenize(batch.x)[:levels])
    subject.check_trained()
    generator = torch.Generator(tokenizer.device).manual_seed(check_seed(seed))

    def version(batch: Batch) -> Tensor:
        fitting, length = long_enough(tokenizer, batch.x.shape[-1]), batch.x.shape[-1]
        labels = batch.labels if fitting.sample_classes else None
        codes = fitting.finer(fitting.tokenize(batch.x)[:levels], labels, generator=generator)
        return fitting.decoded(codes, batch.labels)[..., :length]

    return version
