"""Adversarial training: steps beside a plain script's, and what penalties cost.

    python benchmarks/adversarial.py [--rounds 9]

A step of critic and generator of DCGAN, 32x32x3, batch 64, beside the same networks as scripts have them:
eager, in PyTorch's default memory format, Adam as it comes. ``penalties``: the same step with gradient
penalties in each step and in each 16th, as multiples of the plain step of the same networks. ``parts``:
layers of the styled and growing models, forward and backward, as multiples of their convolution alone. All
contestants take turns; figures are medians.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ancestral.batch import Batch
from ancestral.models.adversarial.dcgan import DCGAN
from ancestral.models.adversarial.stylegan2 import Layer
from ancestral.nn.equalized import EqualizedConv2d
from ancestral.nn.spectral import spectral_norm
from ancestral.recipe import Optimization
from ancestral.spec import Spec
from ancestral.stages import Phase, Progress
from ancestral.training.work import PhaseLoss

COLORS = Spec(shape=(3, 32, 32))
CONFIG = DCGAN.Config(width=64, critic_width=64, scales=3, class_conditional=False)


def plain_networks() -> tuple[nn.Module, nn.Module]:
    """Generator and critic, of the widths of ``CONFIG``."""
    generator = nn.Sequential(
        nn.Linear(100, 256 * 16, bias=False), nn.Unflatten(1, (256, 4, 4)), nn.BatchNorm2d(256), nn.ReLU(),
        nn.ConvTranspose2d(256, 128, 4, 2, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU(),
        nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.ConvTranspose2d(64, 3, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip
    critic = nn.Sequential(
        nn.Conv2d(3, 64, 4, 2, 1, bias=False), nn.LeakyReLU(0.2),
        nn.Conv2d(64, 128, 4, 2, 1, bias=False), nn.BatchNorm2d(128), nn.LeakyReLU(0.2),
        nn.Conv2d(128, 256, 4, 2, 1, bias=False), nn.BatchNorm2d(256), nn.LeakyReLU(0.2),
        nn.Flatten(), nn.Linear(256 * 16, 1),
    )  # fmt: skip
    return generator, critic


def plain(x: Tensor) -> Callable[[], None]:
    """A step as scripts have it."""
    generator, critic = plain_networks()
    adams = [torch.optim.Adam(m.parameters(), 2e-4, (0.5, 0.999)) for m in (critic, generator)]

    def step() -> None:
        real = x.float() / 127.5 - 1
        adams[0].zero_grad()
        fake = generator(torch.randn(len(x), 100))
        r, f = critic(real), critic(fake.detach())
        loss = binary_cross_entropy_with_logits(r, torch.ones_like(r))
        (loss + binary_cross_entropy_with_logits(f, torch.zeros_like(f))).backward()
        adams[0].step()
        adams[1].zero_grad()
        f = critic(fake)
        binary_cross_entropy_with_logits(f, torch.ones_like(f)).backward()
        adams[1].step()

    return step


def ours(
    config: DCGAN.Config, x: Tensor, *, compiled: bool = False, bf16: bool = False
) -> Callable[[], None]:
    """A step as the loop takes it."""
    model = config.build(COLORS).train().to(memory_format=torch.channels_last)
    (stage,) = model.stages()
    loss: Callable = PhaseLoss(model, Optimization(steps=1000))
    loss = torch.compile(loss, dynamic=False) if compiled else loss
    adams = {
        phase.name: torch.optim.Adam(phase.parameters, 2e-4, (0.5, 0.999), fused=True)
        for phase in stage.phases
        if phase.optimizer is None
    }
    done, progress = 0, Progress.at(0, 1000)

    def train(phase: Phase) -> None:
        own = {id(p) for p in phase.parameters}
        for p in model.parameters():
            p.requires_grad_(id(p) in own)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            total, _ = loss(Batch(x).tensors(), phase.name, progress.step)
        total.backward()
        adam = adams[phase.optimizer or phase.name]
        adam.step()
        adam.zero_grad()

    def step() -> None:
        nonlocal done
        for phase in stage.phases:
            if done % phase.every == 0:
                train(phase)
        done += 1

    return step


def part(layer: nn.Module, *given: Tensor, compiled: bool = False) -> Callable[[], None]:
    """Forward and backward of a layer."""
    layer = layer.to(memory_format=torch.channels_last)
    first = given[0].to(memory_format=torch.channels_last).requires_grad_()
    run = torch.compile(layer, dynamic=False) if compiled else layer

    def step() -> None:
        run(first, *given[1:]).square().mean().backward()
        layer.zero_grad()
        first.grad = None

    return step


class Styled(nn.Module):
    """StyleGAN2's layer whose maps double, and the one after it, as its generator has them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.doubling, self.same = (Layer(width, width, 64, double=double) for double in (True, False))

    def forward(self, x: Tensor, w: Tensor, plane: Tensor) -> Tensor:
        """Maps to maps of twice the sides."""
        return self.same(self.doubling(x, w, plane), w, plane)


class Bare(nn.Module):
    """The convolutions of ``Styled`` alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.doubling = nn.ConvTranspose2d(width, width, 3, stride=2, padding=1, output_padding=1, bias=False)
        self.same = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps to maps of twice the sides."""
        return self.same(self.doubling(x))


def parts(rounds: int) -> None:
    """Measure and print layers."""
    width, n = 128, 32
    x, w, plane = torch.randn(n, width, 16, 16), torch.randn(n, 64), torch.randn(n, 1, 32, 32)
    large = torch.randn(n, width, 32, 32)
    groups: dict[str, dict[str, Callable[[], None]]] = {
        "styles": {
            "convolutions alone": part(Bare(width), x),
            "styled": part(Styled(width), x, w, plane),
            "styled, compiled": part(Styled(width), x, w, plane, compiled=True),
        },
        "equalized": {
            "convolution": part(nn.Conv2d(width, width, 3, padding=1), large),
            "equalized": part(EqualizedConv2d(width, width, 3), large),
            "spectral norm": part(spectral_norm(nn.Conv2d(width, width, 3, padding=1)), large),
        },
    }
    for name, jobs in groups.items():
        t = medians(jobs, rounds)
        first = next(iter(t.values()))
        print(f"\n{name:>20} | {'ms':>8} | {'multiple':>8}")
        for job, seconds in t.items():
            print(f"{job:>20} | {1e3 * seconds:8.1f} | {seconds / first:8.2f}")


def medians(jobs: dict[str, Callable[[], None]], rounds: int, steps: int = 1) -> dict[str, float]:
    """Seconds of a step of each."""
    for job in jobs.values():
        job()
        job()
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            start = time.perf_counter()
            for _ in range(steps):
                job()
            times[name].append((time.perf_counter() - start) / steps)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    x = torch.randint(256, (64, 3, 32, 32)).to(torch.uint8)
    jobs = {
        "plain": plain(x),
        "ours": ours(CONFIG, x),
        "compiled": ours(CONFIG, x, compiled=True),
        "bf16": ours(CONFIG, x, bf16=True),
        "bf16, compiled": ours(CONFIG, x, compiled=True, bf16=True),
    }
    t = medians(jobs, rounds)
    print(f"{'dcgan 32x32x3 x64':>20} | {'ms':>8} | {'speed-up':>8}")
    for name, seconds in t.items():
        print(f"{name:>20} | {1e3 * seconds:8.1f} | {t['plain'] / seconds:8.2f}")
    bare = replace(CONFIG, critic_norm="none")
    penalties = {
        "none": bare,
        "r1": replace(bare, penalty="r1"),
        "r1 each 16th": replace(bare, penalty="r1", penalty_every=16),
        "lipschitz": replace(bare, loss="wasserstein", penalty="lipschitz"),
    }
    t = medians({name: ours(config, x) for name, config in penalties.items()}, max(2, rounds // 3), 16)
    print(f"\n{'penalty':>20} | {'ms':>8} | {'of a step':>9}")
    for name, seconds in t.items():
        print(f"{name:>20} | {1e3 * seconds:8.1f} | {seconds / t['none']:9.2f}")
    parts(rounds)


if __name__ == "__main__":
    main()
