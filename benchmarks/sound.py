"""WaveNet's samples a second: its stream, the compiled loop of ``wavenet_stream``, and a plain C loop.

    python benchmarks/sound.py [--rounds N] [--threads N]

The network has 40 layers (10 dilations, 4 times) of 32 residual, 32 gate and 256 skip channels, kernel 2, and
a softmax over 256 levels: 1.33 MFLOP a sample. All draw with the same noise, in turns; medians are compared.
``a second`` counts by the clock, ``of a core`` by the processor's time, which neighbors on a shared machine
disturb less; ``same`` is the share of values that are the stream's. The stream runs in one thread, which
suits its small operators best, and so does the C loop (``wavenet_loop.c``), left out without a compiler.
"""

import argparse
import ctypes
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ancestral.models.autoregressive.base import Autoregressive
from ancestral.models.autoregressive.wavenet import WaveNet
from ancestral.models.autoregressive.wavenet_stream import generate, pack, projection
from ancestral.sampling import PLAIN
from ancestral.spec import Spec

STEPS = 4000
STREAMED = 250
"""Steps of the stream, whose steps all cost the same."""


def network() -> WaveNet:
    torch.manual_seed(0)
    spec = Spec(shape=(1, STEPS), rate=8000, encoding="mu-law")
    return WaveNet(WaveNet.Config(width=32, gate_width=32, skip_width=256, cycles=4), spec).eval()


def streamed(model: WaveNet, uniforms: Tensor) -> Tensor:
    torch.set_num_threads(1)
    given = {"x": None, "known": None, "progress": None}
    stream = model.stream(len(uniforms))
    return Autoregressive.run(model, stream, uniforms, PLAIN, last=STREAMED, **given)[..., :STREAMED]


def looped(model: WaveNet, uniforms: Tensor, threads: int) -> Tensor:
    torch.set_num_threads(threads)
    return generate(model, uniforms)


def c_loop(model: WaveNet, folder: Path) -> Callable[[Tensor], Tensor] | None:
    """The C loop, compiled for the model's sizes; None without a compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    config, weights = model.config, pack(model, STEPS)
    sizes = {
        "LAYERS": len(model.layers),
        "R": config.width,
        "G": config.gate_width,
        "S": config.skip_width,
        "LEVELS": model.spec.levels,
    }
    command = [
        compiler,
        "-O3",
        "-march=native",
        "-ffast-math",
        "-shared",
        "-fPIC",
        "-o",
        str(folder / "c.so"),
    ]
    command += [
        *(f"-D{name}={size}" for name, size in sizes.items()),
        __file__.replace("sound.py", "wavenet_loop.c"),
    ]
    start = time.perf_counter()
    subprocess.run([*command, "-lm"], check=True)
    print(f"the C compiler took {time.perf_counter() - start:.1f} s")
    advance = ctypes.CDLL(str(folder / "c.so")).advance
    bias = projection(model)[1].detach().contiguous().numpy()
    before = [weights.first, weights.start, weights.gates, bias, weights.outputs, weights.residual_bias]
    after = [
        weights.merge,
        weights.merge_bias,
        weights.head,
        weights.head_bias,
        weights.dilations,
        weights.slots,
    ]

    def draw(uniforms: Tensor) -> Tensor:
        n, _, steps = uniforms.shape
        rings = np.zeros((n, weights.slots[-1], config.width), np.float32)
        values, noise = np.zeros((n, steps), np.int64), uniforms.double().numpy()
        arrays = [*before, *after, rings, values, noise]
        advance(*(ctypes.c_void_p(a.ctypes.data) for a in arrays), ctypes.c_int64(n), ctypes.c_int64(steps))
        return torch.from_numpy(values)[:, None]

    return draw


def rates(job: Callable[[], Tensor]) -> tuple[float, float]:
    """Samples a second by the clock, and by the processor's time."""
    clock, processor = time.perf_counter(), time.process_time()
    drawn = job().numel()
    return drawn / (time.perf_counter() - clock), drawn / (time.process_time() - processor)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contestant")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the compiled loop")
    options = parser.parse_args()
    model = network()
    print(
        f"{platform.processor() or platform.machine()}, {options.threads} threads, torch {torch.__version__}"
    )
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NUMBA_CACHE_DIR"] = folder  # where nothing is compiled yet
        start = time.perf_counter()
        generate(model, torch.rand(1, 1, 1))
        print(f"Numba took {time.perf_counter() - start:.1f} s")
        in_c = c_loop(model, Path(folder))
    print(f"{'':>20} | {'a second':>9} | {'of a core':>9} | {'x stream':>8} | {'same':>5}")
    for n in (1, 16):
        uniforms = torch.rand(n, 1, STEPS)
        jobs: dict[str, Callable[[], Tensor]] = {
            f"stream, n={n}": lambda noise=uniforms: streamed(model, noise),
            f"loop, n={n}": lambda noise=uniforms: looped(model, noise, options.threads),
        }
        if in_c is not None:
            jobs[f"C loop, n={n}"] = lambda noise=uniforms: in_c(noise)
        reference = next(iter(jobs.values()))()
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
        for _ in range(options.rounds):
            for name, job in jobs.items():
                found[name].append(rates(job))
        stream = statistics.median(clock for clock, _ in found[f"stream, n={n}"])
        for name, job in jobs.items():
            clock, processor = (statistics.median(each) for each in zip(*found[name], strict=True))
            same = (job()[..., :STREAMED] == reference).double().mean()
            print(
                f"{name:>20} | {clock:9,.0f} | {processor:9,.0f} | {clock / stream:8.1f} | {same:5.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
