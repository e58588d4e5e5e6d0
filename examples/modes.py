"""Modes that a generator covers: 25 Gaussians in the plane, and what each game makes of them.

    python examples/modes.py runs/modes          # a minute each, and the picture runs/modes/modes.png

A mode is covered if at least a fifth of the samples that belong there are within 3 standard deviations of it;
good samples are so near to any. The networks, three rectified layers each way, are written here: an
adversarial model of one's own is two modules and a class.
"""

import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

import ancestral
from ancestral.batch import Batch
from ancestral.data import Dataset
from ancestral.media import Pixels, write_png
from ancestral.media.figure import Axis, Figure
from ancestral.media.table import scatter
from ancestral.models.adversarial.base import Adversarial, apart
from ancestral.recipe import Optimization, Recipe
from ancestral.spec import Spec
from ancestral.training import TrainingOptions

SPREAD, SAMPLES = 0.05, 10_000
CENTERS = torch.cartesian_prod(torch.arange(-2.0, 3), torch.arange(-2.0, 3))
SLOWING = {"betas": (0.5, 0.9), "schedule": "linear", "decay_from": 0.5}
GAMES = {
    "minimax": {"loss": "minimax"},
    "non-saturating": {},
    "least squares": {"loss": "least-squares"},
    "hinge": {"loss": "hinge"},
    "non-saturating, R1": {"penalty": "r1", "penalty_weight": 0.01},
    "WGAN-GP": {"loss": "wasserstein", "penalty": "lipschitz", "penalty_weight": 0.1, "critic_updates": 5},
    "relativistic, R1 and R2": {"loss": "relativistic", "penalty": "r1-r2", "penalty_weight": 0.01},
}


class Layers(nn.Sequential):
    """Three rectified layers, of a slope below 0, and one that is not."""

    def __init__(self, inputs: int, width: int, outputs: int, slope: float = 0.0) -> None:
        layers = [(nn.Linear(a, b), nn.LeakyReLU(slope)) for a, b in pairwise((inputs, width, width, width))]
        super().__init__(*(part for layer in layers for part in layer), nn.Linear(width, outputs))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, inputs)`` to ``(N, outputs)``, or ``(N,)`` if that is 1."""
        return super().forward(x).squeeze(1)


class Plane(Adversarial):
    """Points of a plane."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Adversarial.Config):
        """What it is made of."""

        latents: int = 2
        width: int = 128

    recipes: ClassVar = {
        "plane": Recipe(
            source="usual settings for 25 Gaussians",
            model=Config(),
            stages={
                "training": Optimization(
                    steps=5000, batch_size=256, ema=0.995,
                    phases=apart(2e-3, 1e-3, **SLOWING),
                )
            },
        )
    }  # fmt: skip

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        self.generator = Layers(config.latents, config.width, spec.dims)
        self.critic = Layers(spec.dims, config.width, 1, slope=0.2)
        self.check_game()


def mixture(n: int, seed: int) -> Tensor:
    """Draws of the 25 Gaussians, ``(n, 2)``."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(len(CENTERS), (n,), generator=generator)
    return CENTERS[which] + SPREAD * torch.randn(n, 2, generator=generator)


def covered(x: Tensor) -> tuple[int, float]:
    """How many modes samples cover, and the share of good ones."""
    distances, nearest = torch.cdist(x, CENTERS).min(1)
    good = distances < 3 * SPREAD
    counts = nearest[good].bincount(minlength=len(CENTERS))
    return int((counts >= len(x) / len(CENTERS) / 5).sum()), float(good.float().mean())


def drawn(panels: dict[str, Tensor]) -> Pixels:
    """Samples of each game, a panel each."""
    side, gap, top, across = 220, 16, 30, 4
    figure = Figure(gap + across * (side + gap), -(-len(panels) // across) * (side + top + gap))
    axis = Axis(-2.6, 2.6, side)
    for i, (name, x) in enumerate(panels.items()):
        left, upper = gap + i % across * (side + gap), top + i // across * (side + top + gap)
        figure.write(left, upper - 20, name, "la", size=14)
        figure.frame(left, upper, side, side)
        points = x[:3000].double().numpy()
        figure.shade(left, upper, scatter(points[:, 0], points[:, 1], axis, axis), (49, 104, 178))
    return figure.pixels


def main(out: Path) -> None:
    """Train each game, count, draw."""
    parts = {name: Batch(mixture(n, i)) for i, (name, n) in enumerate(
        (("train", 100_000), ("validation", 1000), ("test", 1000)))}  # fmt: skip
    data = Dataset(source="25 gaussians", spec=Spec(shape=(2,), levels=None), **parts)
    panels = {"real": mixture(SAMPLES, 9)}
    print(f"{'game':>26} | modes of 25 | good samples")
    for name, options in GAMES.items():
        run = ancestral.train(
            Plane, data=data, out=out / name.replace(",", "").replace(" ", "-"),
            config=Plane.Config(**options),
            options=TrainingOptions(evaluate_every=0, sample_every=0, log_every=5000, checkpoint_every=0),
        )  # fmt: skip
        x, _ = ancestral.sample(run, SAMPLES)
        panels[name] = x
        modes, good = covered(x)
        print(f"{name:>26} | {modes:11} | {good:12.3f}", flush=True)
    write_png(out / "modes.png", drawn(panels), enlarge=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
