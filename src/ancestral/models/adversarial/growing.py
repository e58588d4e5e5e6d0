"""What the models that grow share: a stage for each resolution, of which each but the first fades in."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ancestral.batch import Batch
from ancestral.configuration import Natural, Width
from ancestral.errors import UserError
from ancestral.models.adversarial.base import ByChoice
from ancestral.nn.resampling import doubled, halved
from ancestral.spec import Spec
from ancestral.stages import Loss, Progress, Stage


class Grows(Protocol):
    """A network of a level for each resolution."""

    def layers(self, level: int) -> tuple[nn.Module, ...]:
        """What the stage of a level trains."""


class Growth(nn.Module):
    """How far a model has grown: the last level that has been trained, from 0, and its weight alpha."""

    level: Tensor
    alpha: Tensor

    def __init__(self, level: int) -> None:
        super().__init__()
        self.register_buffer("level", torch.tensor(level))
        self.register_buffer("alpha", torch.ones(()))


class Growing(ByChoice):
    """Base of models that begin with small images and double them (Karras et al., 2017, section 2).

    The generator takes z, classes, the level (0 for the smallest images) and alpha, a scalar: the weight of
    the level's own layers beside the former level's image of twice the sides. The critic takes images of a
    level, classes, the level and alpha likewise. Real images are faded as generated ones are. Samples are as
    large as the data, whatever has been trained.

    Shapes: x ``(N, C, H, W)``.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(ByChoice.Config):
        """Options that all growing models have."""

        base: Width | None = None
        """The shorter side of the smallest map; None for 4, or for what the sides can be halved to above."""
        start: Width = 4
        """The shorter side, at least, of the images of the first stage."""
        fade: Natural = 600_000
        """Images in which a stage's layers fade in, and at most half of the stage."""

    def __init__(self, config: Any, spec: Spec) -> None:
        super().__init__(config, spec)
        self.levels, self.grid = grown_from(spec, config.base)
        sides = [min(self.grid) << level for level in range(self.levels)]
        self.first = min(sum(side < config.start for side in sides), self.levels - 1)
        self.growth = Growth(self.first)
        self._at: tuple[int, Tensor] | None = None

    def stages(self) -> tuple[Stage, ...]:
        """One a resolution, ``level1`` that of the smallest.

        The last alone has signs of trouble: small images vary less than the data.
        """
        (whole,) = super().stages()
        return tuple(self._stage(whole, level) for level in range(self.first, self.levels))

    def _stage(self, whole: Stage, level: int) -> Stage:
        networks: tuple[Any, Any] = (self.generator, self.critic)
        generator, critic = (tuple(network.layers(level)) for network in networks)
        critic += (self.growth,) if self.augmentation is None else (self.growth, self.augmentation)
        phases = tuple(
            replace(phase, modules=generator if phase.name == "generator" else critic)
            for phase in whole.phases
        )
        transform = partial(self.shrunk, level)
        return replace(
            whole,
            name=f"level{level - self.first + 1}",
            phases=phases,
            transform=transform,
            averaged=generator,
            watch=whole.watch if level == self.levels - 1 else None,
        )

    def shrunk(self, level: int, batch: Batch, progress: Progress) -> Batch:
        """Images of a level's sides: means of the full ones, rounded to levels as in the authors' files."""
        x = batch.x.to(self.dtype)
        for _ in range(self.levels - 1 - level):
            x = halved(x)
        whole = self.spec.levels is not None
        return replace(batch, x=(x.round() if whole else x).to(batch.x.dtype))

    def loss(self, batch: Batch, phase: str, progress: Progress) -> Loss:
        """See ``Adversarial.loss``; the level is that of the images."""
        level = (batch.x.shape[2] // self.grid[0]).bit_length() - 1
        if self.training:
            fading = min(self.config.fade // progress.batch_size, progress.steps // 2)
            self.growth.level.fill_(level)
            self.growth.alpha.copy_(progress.ramp(fading if level > self.first else 0))
        with self.grown(level, self.growth.alpha.to(self.dtype)):
            return super().loss(batch, phase, progress)

    @contextmanager
    def grown(self, level: int, alpha: Tensor) -> Iterator[None]:
        """Inside, both networks work at a level."""
        self._at, before = (level, alpha), self._at
        try:
            yield
        finally:
            self._at = before

    @property
    def _now(self) -> tuple[int, Tensor]:
        if self._at is not None:
            return self._at
        return int(self.growth.level), self.growth.alpha.to(self.dtype)

    def real(self, x: Tensor) -> Tensor:
        """See ``Adversarial.real``; faded as generated ones are."""
        x = super().real(x)
        level, alpha = self._now
        return torch.lerp(doubled(halved(x)), x, alpha.to(x.dtype)) if level else x

    def judge(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """See ``Adversarial.judge``."""
        values: Tensor = self.critic(self.seen(x), None if labels is None else labels.long(), *self._now)
        return values.to(x.dtype)

    def make(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """See ``Adversarial.make``: images of the level at hand."""
        images: Tensor = self.generator(z, labels, *self._now)
        return images

    def as_large(self, y: Tensor) -> Tensor:
        """See ``Adversarial.as_large``: places are repeated."""
        while y.shape[2] < self.spec.shape[1]:
            y = doubled(y)
        return y


def grown_from(spec: Spec, base: int | None) -> tuple[int, tuple[int, int]]:
    """How many resolutions there are from the smallest map to the data's, and the sides of that map.

    Args:
        spec: of images.
        base: the map's shorter side; None for the least one of 4 or more that halving gives, if below 16.

    Raises:
        UserError: the data are no images, or none whose sides are so many times 2^k.

    >>> grown_from(Spec(shape=(3, 32, 64)), 4), grown_from(Spec(shape=(3, 28, 28)), None)
    ((4, (4, 8)), (3, (7, 7)))
    """
    if len(spec.shape) != 3:
        raise UserError(f"expected images (C, H, W), got shape {spec.shape}", "use gan for other data")
    sides = spec.shape[1:]
    start = base or smallest(*sides)
    start = start if base or start < 16 else 4
    doublings = max(0, (min(sides) // start).bit_length() - 1)
    grid = [side >> doublings for side in sides]
    if min(grid) == start and all(
        small << doublings == side for small, side in zip(grid, sides, strict=True)
    ):
        return doublings + 1, (grid[0], grid[1])
    odd = min(sides)
    while odd % 2 == 0:
        odd //= 2
    starts = [
        odd << i
        for i in range(10)
        if 2 <= odd << i < min(sides) and max(sides) % (min(sides) // (odd << i)) == 0
    ]
    fitting = "x".join(str(start << max(0, round(math.log2(side / start)))) for side in sides)
    possible = f"--model.base {' or '.join(map(str, starts))}, or " if starts else ""
    problem = f"expected images whose sides are {start} doubled some times, got {sides[0]}x{sides[1]}"
    raise UserError(
        problem,
        f"{'try ' if possible else ''}{possible}resize the images: --images.size {fitting.replace('x', ' ')}",
    )


def smallest(*sides: int) -> int:
    """The least shorter side, of 4 or more, to which sides can be halved together.

    >>> smallest(28, 28), smallest(64, 128), smallest(3, 3)
    (7, 4, 3)
    """
    while all(side % 2 == 0 for side in sides) and min(sides) >= 8:
        sides = tuple(side // 2 for side in sides)
    return min(sides)
