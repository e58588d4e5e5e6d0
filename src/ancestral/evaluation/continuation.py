"""Sounds that go on from a beginning."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ancestral.data import load_sound
from ancestral.errors import UserError
from ancestral.evaluation.lengths import long_enough, samples_of
from ancestral.evaluation.sampling import as_completing, check_seed, repeated
from ancestral.evaluation.subject import Subject, Trained, undisturbed
from ancestral.pipeline import part_size
from ancestral.progress import bar

_BATCH = 64


@undisturbed
def continue_sound(
    model: Trained,
    prefix: Tensor | str | Path,
    seconds: float,
    n: int = 1,
    labels: Sequence[int | str] = (),
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> Tensor:
    """Sounds ``(n, 1, T)`` of so many seconds that begin with the prefix, on the CPU.

    >>> from ancestral.models.autoregressive.wavenet import WaveNet
    >>> from ancestral.spec import Spec
    >>> model = WaveNet(WaveNet.Config.tiny(), Spec(shape=(1, 16), levels=8, rate=8000))
    >>> x = continue_sound(model, torch.tensor([[3, 4, 4, 5]]), seconds=0.003, n=2)
    >>> x.shape, x[:, 0, :4].tolist()
    (torch.Size([2, 1, 24]), [[3, 4, 4, 5], [3, 4, 4, 5]])

    Args:
        model: a model of sounds that completes, a run or its directory, or a Hub name.
        prefix: the beginning, as integers ``(1, t)`` of the model's spec; or a file, which is brought to it.
        seconds: how long they are in all.
        n: how many.
        labels: classes by number or by name, repeated in turn; at random if there are none.
        temperature: 1 samples the model; lower values give likelier, less diverse samples.
        top_k: draw from the k likeliest levels of each value.
        top_p: draw from the likeliest levels that together reach probability p.
        seed: the same seed gives the same sounds on the same machine.
        device: where to compute; where a model is, else on the CPU, if None.
        progress: show a progress bar.

    Raises:
        UserError: the model does not continue sounds, the prefix is none of its sounds or too long, or an
            option is out of its range.
    """
    subject = Subject.find(model, device)
    length = samples_of(as_completing(subject.model), seconds)
    subject.check_trained()
    if n < 1:
        raise UserError(f"expected at least 1 continuation, got {n}", "raise --n")
    network, spec = long_enough(as_completing(subject.model), length), subject.model.spec
    network.check_room(n)
    given = prefix if isinstance(prefix, Tensor) else load_sound(prefix, spec)[0]
    spec.check(given[None])
    known = given.shape[-1]
    if known >= length:
        problem = f"expected a prefix shorter than {seconds:g} s, got {known / (spec.rate or 1):.3g} s"
        raise UserError(problem, "raise --seconds or cut the file")
    classes = repeated(network, labels, n)
    generator = torch.Generator(network.device).manual_seed(check_seed(seed))
    x = torch.zeros(n, *network.spec.shape, dtype=spec.dtype)
    x[..., :known] = given.to(spec.dtype)
    size, drawn = part_size(network.spec.dims, _BATCH), list[Tensor]()
    with bar("continuing", show=progress) as tell:
        for first in range(0, n, size):
            part = slice(first, min(first + size, n))
            made = network.complete(
                x[part],
                torch.arange(length) < known,
                None if classes is None else classes[part],
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                generator=generator,
                progress=_share(tell, part, n),
            )
            drawn.append(made.cpu())
    return torch.cat(drawn)


def _share(tell: Callable[[float], None], part: slice, n: int) -> Callable[[float], None]:
    """What is told the share of a part, and tells that of the whole."""
    return lambda share: tell((part.start + share * (part.stop - part.start)) / n)
