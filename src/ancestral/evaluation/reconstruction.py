"""Originals and a model's versions of them."""

import torch
from torch import Tensor

from ancestral.batch import Batch
from ancestral.capabilities import Reconstructs
from ancestral.data import Dataset, Preparation
from ancestral.errors import UserError
from ancestral.evaluation.batches import batches
from ancestral.evaluation.subject import Subject, Trained, undisturbed


@undisturbed
@torch.no_grad()
def reconstruct(
    model: Trained,
    data: Dataset | Batch | Tensor | str | None = None,
    *,
    split: str = "test",
    n: int | None = 32,
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
        preparation: how a source's data are prepared; as in the run, and to the model's spec, if None.
        device: where to compute; where a model is, else on the CPU, if None.
        progress: show a progress bar.

    Raises:
        UserError: the model does not reconstruct, or the data do not fit it.
    """
    subject = Subject.find(model, device)
    network = subject.model
    if not isinstance(network, Reconstructs):
        raise UserError(
            f"expected a model that reconstructs, got {type(network).__name__}", "use sample instead"
        )
    x = subject.examples(data, split, n, preparation).x
    parts = batches(len(x), "reconstructing", device=network.device, show=progress)
    return x, torch.cat([network.reconstruct(x[part].to(network.device)).cpu() for part in parts])
