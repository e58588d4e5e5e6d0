"""Time and memory of the vector quantizer beside the product of features and codes that it cannot do without.

    python benchmarks/quantizer.py

Forward and backward of the whole layer in training mode, running means and revival included, float32, 64
features. They come as a network in channels-last memory gives them, the trainer's default, and the peer has
them as the rows that it wants. ``bare`` is the product (N, D) x (D, K) into memory that is already there;
``peer`` is vector-quantize-pytorch's VectorQuantize with running means, in training mode. All are timed in
turns in one run; figures are medians. ``ours MiB`` is the peak of a step beyond what the process held.

On a CPU two tables are printed: one with threads that spin while they wait for each other, as they do unless
told otherwise, and one with OMP_WAIT_POLICY=passive. On a machine that others use as well, spinning threads
measure the others' work; a program of many short operations loses more by waiting passively.
"""

import argparse
import gc
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ancestral.nn.quantize import VectorQuantizer

DIM = 64
SIZES = ((8192, 512), (8192, 8192), (32768, 512), (32768, 8192))


def interleaved(jobs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each job.

    They run in turns after a warm-up, so that a drift of the machine meets all alike.
    """
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(repeats + 1):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            synchronize()
            if turn > 0:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def features(n: int, device: torch.device, channels_first: bool) -> Tensor:
    """``(n / 256, 64, 16, 16)``, as an encoder gives."""
    z = torch.randn(n // 256, DIM, 16, 16, generator=torch.Generator().manual_seed(0)).to(device)
    return z.contiguous(
        memory_format=torch.contiguous_format if channels_first else torch.channels_last
    ).requires_grad_()


def our_step(n: int, k: int, device: torch.device, channels_first: bool) -> Callable[[], None]:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(DIM, k, kmeans_start=False).to(device)
    z = features(n, device, channels_first)
    incoming = torch.ones_like(z)

    def step() -> None:
        z.grad = None
        out = quantizer(z)
        torch.autograd.backward([out.z, out.loss], [incoming, None])

    return step


def peer_step(n: int, k: int, device: torch.device) -> Callable[[], None]:
    from vector_quantize_pytorch import VectorQuantize  # noqa: PLC0415  # an optional dependency

    torch.manual_seed(0)
    quantizer = VectorQuantize(dim=DIM, codebook_size=k, decay=0.99).to(device)
    # Rows, the layout that it wants.
    rows = features(n, device, False).detach().movedim(1, -1).reshape(n // 256, 256, DIM).requires_grad_()
    incoming = torch.ones_like(rows)

    def step() -> None:
        rows.grad = None
        quantized, _, loss = quantizer(rows)
        torch.autograd.backward([quantized, loss.sum()], [incoming, None])

    return step


def bare_product(n: int, k: int, device: torch.device) -> Callable[[], None]:
    rows, codebook, out = (
        torch.randn(n, DIM, device=device),
        torch.randn(k, DIM, device=device),
        torch.empty(n, k, device=device),
    )
    return lambda: torch.mm(rows, codebook.t(), out=out)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_extra_mib(step: Callable[[], None], device: torch.device) -> float:
    """MiB that a step needs at its worst beyond what is held before it."""
    if device.type == "cuda":
        step()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    gc.collect()
    before = peak = resident_bytes()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(2e-4):
            peak = max(peak, resident_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(3):
        step()
    done.set()
    watcher.join()
    return (peak - before) / 2**20


def own_process_mib(n: int, k: int, who: str, args: argparse.Namespace) -> float:
    """``peak_extra_mib`` in a fresh process.

    Memory that an allocator keeps from earlier sizes would hide what a step takes.
    """
    command = [
        sys.executable,
        __file__,
        "--device",
        args.device,
        "--threads",
        str(args.threads),
        "--measure-memory",
        who,
        str(n),
        str(k),
    ]
    done = subprocess.run(
        command + ["--channels-first"] * args.channels_first, check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def bound_mib(n: int, k: int) -> float:
    """What the layer may hold beside a buffer of one block, MiB.

    6 arrays of the features, 8 of the codebook.
    """
    block = max(2**21, 64 * k)
    return 4 * (6 * n * DIM + 8 * k * DIM + block) / 2**20


def processor() -> str:
    names = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{os.cpu_count()} x {names[0] if names else platform.processor()}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    parser.add_argument(
        "--repeats",
        type=int,
        default=31,
        help="timed repeats at the smallest size; fewer at larger ones, at least 3",
    )
    parser.add_argument(
        "--channels-first",
        action="store_true",
        help="features in contiguous memory, which has to be copied to rows",
    )
    parser.add_argument("--skip-peer", action="store_true", help="leave the peer out")
    parser.add_argument(
        "--skip-peer-largest",
        action="store_true",
        help="leave the peer out at the largest size, where it takes GBs",
    )
    parser.add_argument(
        "--waiting",
        choices=("both", "as-set"),
        default="both",
        help="a table for each way in which threads wait on a CPU, or one as OMP_WAIT_POLICY says",
    )
    parser.add_argument("--measure-memory", nargs=3, metavar=("WHO", "N", "K"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    if args.waiting == "both" and device.type == "cpu" and not args.measure_memory:
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        for policy in ({}, {"OMP_WAIT_POLICY": "passive"}):
            command = [sys.executable, *sys.argv, "--waiting", "as-set"]
            subprocess.run(command, check=True, env=environment | policy)
        return
    if args.measure_memory:
        who, n, k = args.measure_memory[0], int(args.measure_memory[1]), int(args.measure_memory[2])
        warm = our_step(256, 32, device, args.channels_first)
        warm()  # loads the libraries
        print(
            peak_extra_mib(
                our_step(n, k, device, args.channels_first) if who == "ours" else peer_step(n, k, device),
                device,
            )
        )
        return
    machine = processor() if device.type == "cpu" else torch.cuda.get_device_name()
    waiting = os.environ.get("OMP_WAIT_POLICY", "default")
    print(
        f"{machine}, {args.threads} threads (waiting: {waiting}), load {os.getloadavg()[0]:.1f}, "
        f"torch {torch.__version__}"
    )
    columns = ("N x K", "bare ms", "ours ms", "ratio", "peer ms", "speed-up", "ours MiB", "bound MiB")
    print(" | ".join(f"{column:>12}" for column in columns))
    for n, k in SIZES:
        jobs = {"bare": bare_product(n, k, device), "ours": our_step(n, k, device, args.channels_first)}
        if not args.skip_peer and not (args.skip_peer_largest and (n, k) == SIZES[-1]):
            jobs["peer"] = peer_step(n, k, device)
        work = n * k / (SIZES[0][0] * SIZES[0][1])
        ms = interleaved(jobs, max(3, round(args.repeats / work)))
        peer = (f"{ms['peer']:.1f}", f"{ms['peer'] / ms['ours']:.1f}") if "peer" in ms else ("-", "-")
        row = (
            f"{n} x {k}",
            f"{ms['bare']:.2f}",
            f"{ms['ours']:.2f}",
            f"{ms['ours'] / ms['bare']:.2f}",
            *peer,
        )
        row += (f"{own_process_mib(n, k, 'ours', args):.0f}", f"{bound_mib(n, k):.0f}")
        print(" | ".join(f"{cell:>12}" for cell in row), flush=True)


if __name__ == "__main__":
    main()
