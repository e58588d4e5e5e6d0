"""What coders that are not trained, or only count, take for the levels that models of sound are evaluated on.

    python benchmarks/anchors.py --data asterisk:en

Bits for each sample of a split, test by default: by a table of levels counted in train, one added to each; by
a table of pairs of them, where 16 are added, shared out as the first table says; by xz of all samples; by
FLAC, file by file as 8-bit samples, headers counted; and by linear predictors that adapt as they go, to each
file from nothing. ``s`` is the processor's time.

A predictor works on amplitudes, where speech is nearly linear in its past, and pays for levels. Least squares
with a ridge, in which a sample counts as the one after it times the window, are solved anew every 8 samples.
What is left is said to be Laplace or logistic, at 3 running scales times 7 factors, each integrated over the
amplitudes that a level stands for. Which of these 42 to believe is a Bayesian mixture that forgets: its
weights are raised to the power .98 before each sample. Several predictors share one mixture. A decoder could
follow: nothing is known of a sample before it is paid for. Constants were chosen on en's validation split.
"""

import argparse
import io
import lzma
import math
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import njit

from ancestral.companding import to_amplitudes
from ancestral.data.load import load_data
from ancestral.errors import UserError
from ancestral.progress import watched
from ancestral.spec import Spec
from ancestral.units import bits

Array = np.ndarray[Any, Any]

LINEAR = {
    "linear: 16, .995": ((16, 0.995),),
    "linear: 12, .99; 20, .997; 32, .9995": ((12, 0.99), (20, 0.997), (32, 0.9995)),
}
"""Orders and windows of the predictors that share a mixture."""
SOLVED = 8
"""Samples between two solutions."""
RIDGE = 1e-5
"""What the squared coefficients count beside the squared errors of a window."""
SLOW = np.array([0.8, 0.95, 0.99])
"""Share of a running mean of absolute errors that a sample leaves."""
FACTORS = 2.0 ** np.linspace(-1.5, 1.5, 7)
"""Scales of distributions, as multiples of a running mean."""
FORGETTING = 0.98
UNIFORM = 1e-4
"""Share of every distribution that is even, so that none rules a level out."""
PAIRS = 16.0
"""What is added to the counts of the levels after a level, in all."""
CHECKED = 2000
"""Samples between two at which the probabilities of all levels are summed."""


@njit
def mass(logistic: bool, low: float, high: float) -> float:
    """The probability of what lies between two multiples of the mean absolute value."""
    if low > 0:  # near 1, the difference of cumulative probabilities would be rounded away
        low, high = -high, -low
    if logistic:
        of_scale = 2 * math.log(2.0)
        return 1 / (1 + math.exp(-high * of_scale)) - 1 / (1 + math.exp(-low * of_scale))
    below = 0.5 * math.exp(high) if high <= 0 else 1 - 0.5 * math.exp(-high)
    return below - 0.5 * math.exp(low)


@njit
def fill(found: Array, predictions: Array, means: Array, edges: Array, level: int) -> None:
    """The probability of a level under every distribution, ``(P, 3, 7, 2)``."""
    even = UNIFORM / (len(edges) - 1)
    for p in range(found.shape[0]):
        low, high = edges[level] - predictions[p], edges[level + 1] - predictions[p]
        for i in range(found.shape[1]):
            for j in range(found.shape[2]):
                scale = means[p, i] * FACTORS[j]
                for logistic in range(2):
                    inside = mass(logistic == 1, low / scale, high / scale)
                    found[p, i, j, logistic] = (1 - UNIFORM) * inside + even


@njit
def adaptive(
    levels: Array, heights: Array, edges: Array, orders: Array, windows: Array
) -> tuple[float, float]:
    """The nats of a recording, and how far from 1 the probabilities of all levels were at most.

    Levels ``(T,)`` stand for ``heights`` and for what lies between two of ``edges``.
    """
    longest = orders.max()
    past = np.zeros(longest + len(levels))  # what lies before a recording is silence
    past[longest:] = heights[levels]
    moments = np.zeros((len(orders), longest, longest))
    products, coefficients = np.zeros((len(orders), longest)), np.zeros((len(orders), longest))
    predictions, means = np.zeros(len(orders)), np.full((len(orders), len(SLOW)), 0.01)
    found = np.zeros((len(orders), len(SLOW), len(FACTORS), 2))
    weights = np.full(found.shape, 1 / found.size)
    nats, wrong = 0.0, 0.0
    for t in range(len(levels)):
        for p in range(len(orders)):
            n = orders[p]
            if t % SOLVED == 0:
                matrix = moments[p, :n, :n] + RIDGE * np.eye(n)
                coefficients[p, :n] = np.linalg.solve(matrix, products[p, :n])
            predicted = 0.0
            for i in range(n):
                predicted += coefficients[p, i] * past[longest + t - n + i]
            predictions[p] = min(max(predicted, -1.0), 1.0)
        if t % CHECKED == 0:
            total = 0.0
            for level in range(len(heights)):
                fill(found, predictions, means, edges, level)
                total += (weights * found).sum()
            wrong = max(wrong, abs(total - 1))
        fill(found, predictions, means, edges, levels[t])
        weights = weights * found
        probability = weights.sum()
        nats -= math.log(probability)
        weights = (weights / probability) ** FORGETTING
        weights /= weights.sum()
        x = past[longest + t]
        for p in range(len(orders)):
            for i in range(len(SLOW)):
                mean = SLOW[i] * means[p, i] + (1 - SLOW[i]) * abs(x - predictions[p])
                means[p, i] = max(mean, 1e-5)
            n = orders[p]
            for i in range(n):
                here = past[longest + t - n + i]
                products[p, i] = windows[p] * products[p, i] + here * x
                for j in range(n):
                    moments[p, i, j] = windows[p] * moments[p, i, j] + here * past[longest + t - n + j]
    return nats, wrong


def linear(files: Sequence[Array], spec: Spec, predictors: Sequence[tuple[int, float]], what: str) -> float:
    """Bits of the files by predictors of these orders and windows."""
    heights = to_amplitudes(np.arange(256), spec)
    # Where ``to_levels`` goes from each level to the next.
    between = np.arange(1, 256) * 2 / 255 - 256 / 255
    between = np.sign(between) * np.expm1(np.abs(between) * math.log(256)) / 255
    edges = np.concatenate([[-np.inf], between, [np.inf]])
    orders, windows = (np.array(values) for values in zip(*predictors, strict=True))
    nats = 0.0
    for file in watched(files, what):
        cost, wrong = adaptive(file, heights, edges, orders, windows)
        assert wrong < 1e-9, f"probabilities of all levels differ from 1 by {wrong} in sum"
        nats += cost
    return bits(nats)


def counted(train: Sequence[Array], files: Sequence[Array]) -> tuple[float, float]:
    """Bits of the files by tables of levels and of pairs of them."""
    alone = 1 + sum(np.bincount(file, minlength=256) for file in train)
    alone = alone / alone.sum()
    pairs = PAIRS * np.tile(alone, (256, 1))
    for file in train:
        np.add.at(pairs, (file[:-1], file[1:]), 1)
    pairs /= pairs.sum(1, keepdims=True)
    by_level = sum(np.log(alone[file]).sum() for file in files)
    by_pair = sum(np.log(alone[file[0]]) + np.log(pairs[file[:-1], file[1:]]).sum() for file in files)
    return -bits(by_level), -bits(by_pair)


def flac(files: Sequence[Array], rate: int) -> int:
    """Bits of the files as FLAC of 8-bit samples, each with its headers."""
    import soundfile  # noqa: PLC0415  # load_data says how to get it

    size = 0
    for file in files:
        buffer = io.BytesIO()
        # It takes 16 bits, of which it keeps the upper half.
        samples = (file.astype(np.int16) - 128) << 8
        soundfile.write(buffer, samples, rate, format="FLAC", subtype="PCM_S8")
        buffer.seek(0)
        assert (soundfile.read(buffer, dtype="int16")[0] == samples).all()
        size += 8 * len(buffer.getvalue())
    return size


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="asterisk:en", help="a source of sounds")
    parser.add_argument("--split", default="test", help="what is coded")
    options = parser.parse_args()
    data = load_data(options.data)
    spec = data.spec
    if spec.domain != "sound":
        raise UserError(f"expected sounds, got {data}", "try asterisk:en")
    files = [recording[:, 0].numpy() for recording in data.split(options.split).recordings()]
    train = [recording[:, 0].numpy() for recording in data.train.recordings()]
    total = sum(len(file) for file in files)
    print(f"{platform.processor() or platform.machine()}; {data}")
    print(f"{options.split}: {len(files)} files, {total:,} samples\n")
    print(f"{'':>36} | bits/sample |    s")
    unigram, bigram = counted(train, files)
    jobs: dict[str, Callable[[], float]] = {
        "levels counted in train": lambda: unigram,
        "FLAC, file by file": lambda: flac(files, spec.rate),
        "xz -9e of all": lambda: 8 * len(lzma.compress(b"".join(files), preset=9 | lzma.PRESET_EXTREME)),
        "pairs counted in train": lambda: bigram,
    }
    for name, predictors in LINEAR.items():
        jobs[name] = lambda name=name, of=predictors: linear(files, spec, of, name)
    for name, job in jobs.items():
        start = time.process_time()
        print(f"{name:>36} | {job() / total:11.3f} | {time.process_time() - start:4.0f}", flush=True)


if __name__ == "__main__":
    main()
