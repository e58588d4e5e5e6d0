"""The latents of an image that a generator did not make: those whose image is nearest to it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ancestral.capabilities import Renders, Styled
from ancestral.errors import UserError
from ancestral.evaluation.extractors import Extractor
from ancestral.evaluation.sampling import check_seed, repeated
from ancestral.evaluation.subject import Subject, Trained, undisturbed
from ancestral.model import Model
from ancestral.progress import watched

_FRAMES, _RATE, _DRAWN = 8, 0.1, 1000
"""Pictures of the way, the learning rate, and the draws that styles have their mean of."""
_WARMUP, _COOLING, _RAMP, _NOISE = 0.05, 0.25, 0.75, 0.05
"""Shares of the steps in which the rate rises, falls, and noise on styles fades; and its size at first."""
MOST_CLASSES = 20
"""Tried without labels, the first ones."""
_ROWS = 256
"""Tries side by side, which bounds memory."""


@dataclass(frozen=True)
class Projection:
    """What was found for N images."""

    vectors: Tensor
    """What the images follow (``Renders.vectors``), ``(N, ...)``."""
    labels: Tensor | None
    """Their classes, ``(N,)``, of a model that draws by class."""
    images: Tensor
    """The model's images of these vectors, ``(N, *shape)``."""
    way: Tensor
    """Those met on the way, ``(N, 8, *shape)``."""
    distance: Tensor
    """Of the features of both, squared, beside the square of the original's, ``(N,)``; 0 without features."""
    psnr: Tensor
    """Of the pixels, in dB, ``(N,)``."""


@undisturbed
@torch.inference_mode(False)
@torch.enable_grad()
def project(
    model: Trained,
    x: Tensor,
    labels: Sequence[int | str] = (),
    *,
    extractor: Extractor | None = None,
    steps: int = 300,
    starts: int = 4,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> Projection:
    """Vectors whose images are nearest to some images, by gradient descent.

    As in Karras et al., 2019, appendix D, but for each layer its own vector (W+), and noise as ``decode`` has
    it, which is not looked for.

    Nearest in the features of an extractor and in pixels, both squared and beside the squares of the
    original's. Styles begin at their mean and meet noise that fades; other latents begin at several draws, of
    which the best one stays. Without labels a model that draws by class tries all classes, 20 at most.

    Args:
        model: a model, a run or its directory, or a Hub name.
        x: images ``(N, *spec.shape)`` as the data have them.
        labels: their classes by number or by name, repeated in turn.
        extractor: whose features count; pixels alone if None.
        steps: of the descent.
        starts: draws that latents begin at.
        seed: of draws and noise.
        device: where to compute; where a model is, else on the CPU, if None.
        progress: show a progress bar.

    Raises:
        UserError: the model has no latents that can be looked for, is not trained, or the images are others.
    """
    subject = Subject.find(model, device)
    subject.check_trained()
    network = as_renderer(subject.model)
    if steps < 1 or starts < 1:
        raise UserError(f"expected at least 1 step and 1 start, got {steps} and {starts}", "raise them")
    network.spec.check(x, None)
    if not len(x):
        raise UserError("expected at least 1 image to project, got none", "give some")
    generator = torch.Generator(network.device).manual_seed(check_seed(seed))
    classes = _classes(network, labels, len(x))
    tries = (1 if classes is None else classes.shape[1]) * (1 if isinstance(network, Styled) else starts)
    size = max(1, _ROWS // tries)
    found = []
    for first in watched(range(0, len(x), size), "projecting", show=progress and len(x) > size):
        rows = slice(first, first + size)
        own = None if classes is None else classes[rows]
        search = _Search(network, x[rows], own, tries, extractor, generator=generator)
        for i in watched(range(steps), "projecting", show=progress and len(x) <= size):
            search.step(i, steps)
        found.append(search.result())
    return Projection(
        vectors=torch.cat([part.vectors for part in found]),
        labels=None if classes is None else torch.cat([p.labels for p in found if p.labels is not None]),
        images=torch.cat([part.images for part in found]),
        way=torch.cat([part.way for part in found]),
        distance=torch.cat([part.distance for part in found]),
        psnr=torch.cat([part.psnr for part in found]),
    )


def as_renderer(model: Model) -> Renders:
    """The model. Raises UserError if it renders no images."""
    if not isinstance(model, Renders) or model.spec.domain != "image":
        problem = f"expected a model that renders images, got {type(model).__name__}"
        raise UserError(problem, "use reconstruct for a model with an encoder")
    return model


def _classes(model: Renders, labels: Sequence[int | str], n: int) -> Tensor | None:
    """The classes that each image is tried with, ``(N, tries)``."""
    if not model.sample_classes:
        repeated(model, labels, n)  # which refuses labels
        return None
    given = repeated(model, labels, n)
    if given is not None:
        return given.long().to(model.device).view(-1, 1)
    return torch.arange(min(model.sample_classes, MOST_CLASSES), device=model.device).expand(n, -1)


def _spread(apart: Tensor) -> Tensor:
    """The root of the mean squared length of vectors ``(N, layers, styles)`` whose layers are alike."""
    return apart[:, 0].square().sum(1).mean().sqrt()


class _Search:
    """Several tries for each image, side by side."""

    def __init__(
        self, model: Renders, x: Tensor, classes: Tensor | None, tries: int, extractor: Extractor | None,
        *,
        generator: torch.Generator,
    ) -> None:  # fmt: skip
        self.model, self.extractor, self.generator, self.x = model, extractor, generator, x
        self.tries, self.labels = tries, None
        if classes is not None:
            self.labels = classes.repeat_interleave(tries // classes.shape[1], 1).flatten()
        self.original = model.spec.scale(x.to(model.device), model.dtype)
        self.energy = (self.original + 1).square().flatten(1).mean(1).clamp(min=1e-3)
        self.features = None if extractor is None else extractor.of_scaled(self.original).detach()
        rows = len(x) * self.tries
        z = model.draw_latents(rows, generator=generator)
        self.spread = torch.zeros(())
        start = z
        if isinstance(model, Styled):
            start, self.spread = self._means(model)
        self.v = start.detach().clone().requires_grad_()
        self.adam = torch.optim.Adam([self.v], _RATE, betas=(0.9, 0.999))
        self.frames: list[Tensor] = []

    @torch.no_grad()
    def _means(self, model: Styled) -> tuple[Tensor, Tensor]:
        """Mean styles of each row's class, and how far styles are from their mean."""
        z = model.draw_latents(_DRAWN, generator=self.generator)
        if self.labels is None:
            v = model.vectors(z)
            mean = v.mean(0)
            return mean.expand(len(self.x) * self.tries, *v.shape[1:]), _spread(v - mean)
        found = {int(c): model.vectors(z, c.expand(_DRAWN)) for c in self.labels.unique()}
        spread = torch.stack([_spread(v - v.mean(0)) for v in found.values()]).mean()
        return torch.stack([found[int(c)].mean(0) for c in self.labels]), spread

    def step(self, i: int, steps: int) -> None:
        """One step of the descent for all tries."""
        share = i / steps
        rate = min(1.0, share / _WARMUP + 1 / steps) * min(
            1.0, 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - share) / _COOLING))
        )
        self.adam.param_groups[0]["lr"] = _RATE * rate
        v = self.v
        if isinstance(self.model, Styled):
            size = _NOISE * self.spread * max(0.0, 1 - share / _RAMP) ** 2
            v = v + size * torch.randn(v.shape, generator=self.generator, device=v.device, dtype=v.dtype)
        distance, pixels, images = self._apart(v)
        if i in {steps * k // _FRAMES for k in range(_FRAMES)}:
            self.frames.append(images.detach())
        (self.v.grad,) = torch.autograd.grad((distance + pixels).sum(), self.v)  # and of no weight
        self.adam.step()

    def _apart(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """How far the images of vectors are from the originals, in features and in pixels."""
        images = self.model.render(v, self.labels)
        wanted, energy = (part.repeat_interleave(self.tries, 0) for part in (self.original, self.energy))
        pixels = (images - wanted).square().flatten(1).mean(1) / energy
        if self.features is None or self.extractor is None:
            return torch.zeros_like(pixels), pixels, images
        features = self.features.repeat_interleave(self.tries, 0)
        apart = (self.extractor.of_scaled(images) - features).square().sum(1)
        return apart / features.square().sum(1).clamp(min=1e-6), pixels, images

    @torch.no_grad()
    def result(self) -> Projection:
        """The best try of each image."""
        distance, pixels, images = self._apart(self.v)
        best = (distance + pixels).view(len(self.x), self.tries).argmin(1)
        rows = best + torch.arange(len(self.x), device=best.device) * self.tries
        spec = self.model.spec
        shown = [frame[rows] for frame in self.frames] + [images[rows]] * (_FRAMES - len(self.frames))
        as_examples: Callable[[Tensor], Tensor] = spec.unscale if spec.levels is not None else Tensor.float
        chosen = as_examples(images[rows]).cpu()
        error = (
            (self.original - spec.scale(chosen.to(images.device), images.dtype)).square().flatten(1).mean(1)
        )
        return Projection(
            vectors=self.v[rows].cpu(),
            labels=None if self.labels is None else self.labels[rows].cpu(),
            images=chosen,
            way=torch.stack([as_examples(frame).cpu() for frame in shown], 1),
            distance=distance[rows].cpu(),
            psnr=(10 * (4 / error.clamp(min=1e-10)).log10()).cpu(),
        )
