"""Adversarial training: steps beside a plain script's, and what penalties cost.

    python benchmarks/adversarial.py [--rounds 9]

A step of critic and generator of DCGAN, 32x32x3, batch 64, beside the same networks as scripts have them:
eager, in PyTorch's default memory format, Adam as it comes. ``penalties``: the same step with gradient
penalties in each step and in each 16th, as multiples of the plain step of the same networks. All contestants
take turns; figures are medians.
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
    loss: Callable = PhaseLoss(model, 1000)
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


if __name__ == "__main__":
    main()
