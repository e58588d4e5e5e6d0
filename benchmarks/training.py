"""The training step of the convolutional models against their convolutions alone.

    python benchmarks/training.py [NAME ...]

``convolutions`` runs, forward and backward, exactly those convolutions that one step of the model runs, each
on tensors of its own, with nothing between them. The variants of the step differ in memory format and
compilation. All are timed in turns in one run; figures are medians. ``of peak`` is the share of a large
matrix product's speed in this run that the step's convolutions reach.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d
from torch.overrides import TorchFunctionMode

from ancestral.batch import Batch
from ancestral.model import Model
from ancestral.models.autoregressive.gated_pixelcnn import GatedPixelCNN
from ancestral.models.autoregressive.pixelcnnpp import PixelCNNpp
from ancestral.models.latent.vqvae import VQVAE
from ancestral.spec import Spec
from ancestral.stages import Progress, initialize

GRAY = Spec(shape=(1, 28, 28))
CASES: dict[str, tuple[Model.Config, int]] = {
    "gated-pixelcnn 28x28 x64": (GatedPixelCNN.Config(layers=10, likelihood="logistic-mixture"), 64),
    "pixelcnnpp small 28x28 x16": (PixelCNNpp.Config(width=40, blocks=2, components=5), 16),
    "vqvae tokenizer 28x28 x128": (VQVAE.Config(), 128),
}
"""Configurations whose first phase is timed, each with a batch size."""

ORDER: dict[Any, tuple[str, ...]] = {
    conv2d: ("stride", "padding", "dilation", "groups"),
    conv_transpose2d: ("stride", "padding", "output_padding", "groups", "dilation"),
}
"""The options of a convolution after input, weight and bias, as their positions have it."""


class Recorder(TorchFunctionMode):
    """Notes every convolution that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Tensor, Tensor, dict[str, Any]]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # fmt: skip
        kwargs = dict(kwargs or {})
        if func in ORDER:
            names = ORDER[func]
            options = dict(zip(names, args[3:], strict=False)) | {
                k: v for k, v in kwargs.items() if k in names
            }
            self.calls.append((func, args[0], args[1], options))
        return func(*args, **kwargs)


def convolutions(model: Model, batch: Batch) -> tuple[Callable[[], None], float]:
    """The convolutions of a step, forward and backward, alone; and their FLOPs."""
    with Recorder() as recorder:
        model.loss(batch, model.stages()[0].phases[0].name, Progress.at(0, 1, batch.x.device))
    jobs, flops = [], 0.0
    for function, *tensors, options in recorder.calls:
        x, weight = (t.detach().clone(memory_format=torch.channels_last).requires_grad_() for t in tensors)
        with torch.no_grad():
            out = function(x, weight, None, **options)
        positions = (x if function is conv_transpose2d else out)[:, 0].numel()
        flops += 3 * 2 * weight.numel() * positions
        jobs.append((function, x, weight, options, torch.ones_like(out)))

    def run() -> None:
        for function, x, weight, options, incoming in jobs:
            x.grad = weight.grad = None
            function(x, weight, None, **options).backward(incoming)

    return run, flops


def step(model: Model, batch: Batch, *, compiled: bool) -> Callable[[], None]:
    phase, progress = model.stages()[0].phases[0], Progress.at(0, 1, batch.x.device)
    optimizer = torch.optim.Adam(phase.parameters, 1e-3, fused=True)
    loss = torch.compile(model.loss, dynamic=False) if compiled else model.loss

    def run() -> None:
        loss(batch, phase.name, progress).total.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def seconds(job: Callable[[], object]) -> float:
    start = time.perf_counter()
    job()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="parts of the cases' names; all if none")
    parser.add_argument("--rounds", type=int, default=7, help="steps of each variant, timed in turns")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    processor = platform.processor() or platform.machine()
    print(f"{processor}, {torch.get_num_threads()} threads, torch {torch.__version__}, {device}")
    a = torch.randn(2048, 2048, device=device)
    for name, (config, n) in CASES.items():
        if options.names and not any(part in name for part in options.names):
            continue
        torch.manual_seed(0)
        models = {
            key: config.build(GRAY).to(device)
            for key in ("plain", "channels-last", "compiled", "channels-last, compiled")
        }
        for key, model in models.items():
            if "channels-last" in key:
                model.to(memory_format=torch.channels_last)
        batch = Batch(torch.randint(256, (n, *GRAY.shape), device=device).to(torch.uint8))
        for model in models.values():
            initialize(model, model.stages()[0], batch)
        alone, flops = convolutions(models["channels-last"], batch)
        jobs: dict[str, Callable[[], object]] = {"convolutions alone": alone, "product": lambda: a @ a}
        jobs |= {key: step(model, batch, compiled="compiled" in key) for key, model in models.items()}
        times: dict[str, list[float]] = {key: [] for key in jobs}
        for job in jobs.values():
            job()
            job()
        for _ in range(options.rounds):
            for key, job in jobs.items():
                times[key].append(seconds(job))
        median = {key: statistics.median(values) for key, values in times.items()}
        peak = 2 * 2048**3 / median.pop("product")
        weights = sum(p.numel() for p in models["plain"].parameters())
        print(
            f"\n{name}: {weights / 1e6:.2f}M weights, {flops / 1e9:.1f} GFLOP of convolutions a step, "
            f"product {peak / 1e9:.0f} GFLOP/s"
        )
        print(f"{'':>26} | {'ms':>8} | {'ratio':>6} | of peak")
        for key, value in median.items():
            ratio = value / median["convolutions alone"]
            print(f"{key:>26} | {1e3 * value:8.1f} | {ratio:6.2f} | {flops / value / peak:7.0%}")


if __name__ == "__main__":
    main()
