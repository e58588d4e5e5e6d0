"""Originals and a model's versions of them."""

from collections.abc import Callable

import torch
from torch import Tensor

from ancestral.batch import Batch
from ancestral.capabilities import Reconstructs
from ancestral.configuration import Range
from ancestral.data import Dataset, Preparation
from ancestral.errors import UserError
from ancestral.evaluation.batches import batches
from ancestral.evaluation.sampling import check_seed
from ancestral.evaluation.subject import Subject, Trained, undisturbed
from ancestral.evaluation.tokens import as_tokenizer


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

    Args:
        model: a model, a run or its directory, or a Hub name.
        data: a data set, its source, or examples ``(N, *shape)``; a run's own data if None.
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
    network = subject.model
    if not isinstance(network, Reconstructs):
        raise UserError(
            f"expected a model that reconstructs, got {type(network).__name__}", "use sample instead"
        )
    version = network.reconstruct if levels is None else _of_levels(subject, levels, seed)
    x = subject.examples(data, split, n, preparation).x
    dims = network.spec.dims
    parts = batches(len(x), "reconstructing", device=network.device, show=progress, dims=dims)
    return x, torch.cat([version(x[part].to(network.device)).cpu() for part in parts])


def _of_levels(subject: Subject, levels: int, seed: int) -> Callable[[Tensor], Tensor]:
    """What makes of examples what the first levels of their codes say about them."""
    tokenizer = as_tokenizer(subject.model)
    most = len(tokenizer.code_specs())
    Range(least=1, most=most).check("levels", levels)
    if levels == most:
        return tokenizer.reconstruct
    if tokenizer.progressive:
        return lambda x: tokenizer.detokenize(tokenizer.tokenize(x)[:levels])
    subject.check_trained()
    generator = torch.Generator(tokenizer.device).manual_seed(check_seed(seed))
    return lambda x: tokenizer.detokenize(
        tokenizer.finer(tokenizer.tokenize(x)[:levels], generator=generator)
    )
