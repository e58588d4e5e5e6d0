"""Measures of samples: their time beside a plain implementation, and what 32 bits cost a Fréchet distance.

    python benchmarks/measures.py

Features are what a random network of three layers makes of normal noise, ``n`` x 128. ``plain`` is the
formula as one would write it, with all pairs in memory at once. Figures are medians, timed in turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ancestral.measures import copying, frechet_distance, kernel_distance, overlap


def features(n: int, seed: int, *, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    torch.manual_seed(0)
    layers = [nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 128)]
    z = torch.randn(n, 64, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return nn.Sequential(*layers)(z) * scale + shift


def rank(n: int, seed: int) -> Tensor:
    """Features of 16 dimensions in 128."""
    mix = torch.randn(16, 128, generator=torch.Generator().manual_seed(99))
    return torch.randn(n, 16, generator=torch.Generator().manual_seed(seed)) @ mix


def plain_frechet(x: Tensor, y: Tensor) -> float:
    """The formula in the dtype that it is given."""
    covariances = [torch.cov(part.t()) for part in (x, y)]
    values, vectors = torch.linalg.eigh(covariances[0])
    half = vectors * values.clamp(min=0).sqrt() @ vectors.t()
    cross = torch.linalg.eigvalsh(half @ covariances[1] @ half).clamp(min=0).sqrt().sum()
    distance = (x.mean(0) - y.mean(0)).square().sum()
    return float(distance + sum(c.trace() for c in covariances) - 2 * cross)


def plain_kernel(x: Tensor, y: Tensor) -> float:
    d = x.shape[1]
    k = [((a @ b.t()) / d + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
    same = sum(float((m.sum() - m.diagonal().sum()) / (len(m) * (len(m) - 1))) for m in k[:2])
    return same - 2 * float(k[2].mean())


def plain_overlap(real: Tensor, fake: Tensor, k: int = 5) -> float:
    radii = torch.cdist(real, real).kthvalue(k + 1, dim=1).values
    return float((torch.cdist(real, fake) <= radii[:, None]).any(0).double().mean())


def timed(jobs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=10_000, help="examples of each set")
    parser.add_argument("--rounds", type=int, default=3, help="repeats")
    options = parser.parse_args()
    n = options.n
    x, y, training = features(n, 1), features(n, 2, scale=1.05, shift=0.02), features(n, 3)
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object] | None]] = {
        "Fréchet distance": (lambda: frechet_distance(x, y), lambda: plain_frechet(x.double(), y.double())),
        "kernel distance": (lambda: kernel_distance(x, y), lambda: plain_kernel(x.double(), y.double())),
        "overlap (four measures; plain: precision)": (
            lambda: overlap(x, y),
            lambda: plain_overlap(x.double(), y.double()),
        ),
        "copies": (lambda: copying(x, y, training), None),
    }
    print(f"{n:,} x 128, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'measure':>42} | {'seconds':>8} | {'plain':>8} | ratio")
    for name, (ours, plain) in pairs.items():
        jobs = {"ours": ours} | ({"plain": plain} if plain else {})
        found = timed(jobs, options.rounds)
        beside = (
            f"{found['plain']:8.2f} | {found['plain'] / found['ours']:5.1f}" if plain else f"{'-':>8} |     -"
        )
        print(f"{name:>42} | {found['ours']:8.2f} | {beside}", flush=True)
    print("\nFréchet distance: in 64 bits, by the plain formula in 32, and the difference")
    sets = {
        "one distribution": (features(n, 1), features(n, 2)),
        "scaled by 1.05, moved by .02": (x, y),
        "the same, 100 away from 0": (x + 100, y + 100),
        "rank 16 of 128": (rank(n, 1), rank(n, 2)),
    }
    for name, (a, b) in sets.items():
        exact, single = frechet_distance(a, b), plain_frechet(a.float(), b.float())
        print(f"{name:>42} | {exact:11.8f} | {single:11.8f} | {single - exact:+.1e}")


if __name__ == "__main__":
    main()
