"""Films through the latent space of a model."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ancestral.capabilities import Decodes
from ancestral.errors import UserError
from ancestral.evaluation.sampling import check_seed, repeated
from ancestral.evaluation.subject import Subject, Trained, undisturbed
from ancestral.progress import watched
from ancestral.sampling import Sampling

_STEPS = 24

Through = Literal["latents", "classes"]
"""What samples of a film go through."""


@undisturbed
@torch.no_grad()
def film(
    model: Trained,
    n: int = 16,
    labels: Sequence[int | str] = (),
    *,
    stops: int = 4,
    through: Through = "latents",
    steps: int = _STEPS,
    temperature: float | Sequence[float] = 1.0,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> Tensor:
    """``n`` samples that change into each other and back: ``(stops * steps, n, *shape)`` on the CPU.

    Each goes through latents of its own, on great circles, or through classes with the same latents, on
    straight lines, and ends where it began.

    Args:
        model: a model, a run or its directory, or a Hub name.
        n: how many are shown at a time.
        labels: classes by number or by name, repeated in turn; if none, at random, or to go through all.
        stops: latents, or classes, that each goes through.
        through: what they go through.
        steps: pictures from one to the next.
        temperature: of the latents.
        seed: the same seed gives the same film.
        device: where to compute; where a model is, else on the CPU, if None.
        progress: show a progress bar.

    Raises:
        UserError: the model has no latents, is not trained, or does not draw these classes or mix them; or
            fewer than 2 stops.
    """
    subject = Subject.find(model, device)
    subject.check_trained()
    network = subject.model
    if not isinstance(network, Decodes):
        problem = f"expected a model with latents to interpolate, got {type(network).__name__}"
        raise UserError(problem, "draw samples without --interpolate")
    if stops < 2 or n < 1 or steps < 1:
        got = f"{stops} latents, {n} samples, {steps} steps"
        raise UserError(f"expected at least 2 latents, 1 sample and 1 step, got {got}", "raise them")
    network.check_room(n * stops * steps)
    generator = torch.Generator(network.device).manual_seed(check_seed(seed))
    if through == "classes":
        _check_mixing(network)
        labels = labels or range(network.sample_classes)
        classes = repeated(network, labels, n + stops)
    else:
        classes = repeated(network, labels, n)
        if classes is None and network.sample_classes:
            classes = torch.randint(network.sample_classes, (n,), device=network.device, generator=generator)
    z = network.draw_latents(n * stops, Sampling(temperature=temperature), generator).view(stops, n, -1)
    frames = []
    for i in watched(range(stops * steps), "frames", show=progress):
        stop, step = divmod(i, steps)
        share, after = torch.tensor(step / steps, dtype=z.dtype, device=z.device), (stop + 1) % stops
        if through == "classes":
            assert classes is not None
            given = mixed(classes[stop : stop + n], classes[after : after + n], share, network.sample_classes)
            frames.append(network.decode(z[0], given).cpu())
        else:
            frames.append(network.decode(circle(z[stop], z[after], share), classes).cpu())
    return torch.stack(frames)


def _check_mixing(model: Decodes) -> None:
    """Raise UserError unless a model can go from class to class."""
    name = type(model).__name__
    if model.sample_classes < 2:
        raise UserError(f"expected a model that draws by class, got a {name}", "go through latents")
    if not model.mixes_classes:
        raise UserError(f"expected a model that mixes classes, got a {name}", "go through latents")


def mixed(a: Tensor, b: Tensor, share: Tensor, classes: int) -> Tensor:
    """Shares of classes ``(N, classes)`` at a share of the way from classes ``(N,)`` to others.

    >>> mixed(torch.tensor([0]), torch.tensor([2]), torch.tensor(0.25), 3)
    tensor([[0.7500, 0.0000, 0.2500]])
    """
    first, second = (one_hot(labels.long(), classes).to(share.dtype) for labels in (a, b))
    return first + share * (second - first)


def circle(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Points on the great circles from vectors ``(N, D)`` to others, at a share of the way.

    A straight line between two draws of a high-dimensional normal leaves the shell where its mass is (White,
    2016, https://arxiv.org/abs/1609.04468).

    >>> circle(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor(0.5))
    tensor([[0.7071, 0.7071]])
    """
    angle = torch.acos(torch.cosine_similarity(a, b, dim=-1).clamp(-0.9999, 0.9999)).unsqueeze(-1)
    return (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)
