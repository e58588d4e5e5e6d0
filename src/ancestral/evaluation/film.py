"""Films through the latent space of a model."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ancestral.capabilities import Decodes
from ancestral.errors import UserError
from ancestral.evaluation.sampling import check_seed, repeated
from ancestral.evaluation.subject import Subject, Trained, undisturbed
from ancestral.progress import watched
from ancestral.sampling import Sampling

_STEPS = 24


@undisturbed
@torch.no_grad()
def film(
    model: Trained,
    n: int = 16,
    labels: Sequence[int | str] = (),
    *,
    stops: int = 4,
    steps: int = _STEPS,
    temperature: float = 1.0,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> Tensor:
    """``n`` samples that change into each other and back: ``(stops * steps, n, *shape)`` on the CPU.

    Each goes through latents of its own, on great circles, and ends where it began.

    Args:
        model: a model, a run or its directory, or a Hub name.
        n: how many are shown at a time.
        labels: classes by number or by name, repeated in turn; at random without them.
        stops: latents that each goes through.
        steps: pictures from one to the next.
        temperature: of the latents.
        seed: the same seed gives the same film.
        device: where to compute; where a model is, else on the CPU, if None.
        progress: show a progress bar.

    Raises:
        UserError: the model has no latents, is not trained, or does not draw these classes; or fewer than 2
            stops.
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
    classes = repeated(network, labels, n)
    if classes is None and network.sample_classes:
        classes = torch.randint(network.sample_classes, (n,), device=network.device, generator=generator)
    z = network.draw_latents(n * stops, Sampling(temperature=temperature), generator).view(stops, n, -1)
    frames = []
    for i in watched(range(stops * steps), "frames", show=progress):
        stop, share = divmod(i, steps)
        between = circle(z[stop], z[(stop + 1) % stops], torch.tensor(share / steps, device=z.device))
        frames.append(network.decode(between, classes).cpu())
    return torch.stack(frames)


def circle(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Points on the great circles from vectors ``(N, D)`` to others, at a share of the way.

    A straight line between two draws of a high-dimensional normal leaves the shell where its mass is (White,
    2016, https://arxiv.org/abs/1609.04468).

    >>> circle(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor(0.5))
    tensor([[0.7071, 0.7071]])
    """
    angle = torch.acos(torch.cosine_similarity(a, b, dim=-1).clamp(-0.9999, 0.9999)).unsqueeze(-1)
    return (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)
