"""The training step of the convolutional models against their convolutions alone.

    python benchmarks/training.py [NAME ...] [--threads N]

``convolutions`` runs, forward and backward, exactly those convolutions that one step of the model runs, each
on tensors of its own, channels last and in the precision that they have there, with nothing between them. The
variants of the step differ in memory format, precision and compilation. All are timed in turns in one run;
figures are medians, and ratios are to the convolutions of the same precision: by the clock, and by the
processor's time, which neighbors on a shared machine disturb less (idle threads that spin count in it, what a
GPU does not). ``of peak`` is the share of a large float32 matrix product's speed in this run that the step's
convolutions reach, by the processor's time.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv1d, conv2d, conv_transpose1d, conv_transpose2d
from torch.overrides import TorchFunctionMode

from ancestral.batch import Batch
from ancestral.memory import keep_freed
from ancestral.model import Model
from ancestral.models.autoregressive.gated_pixelcnn import GatedPixelCNN
from ancestral.models.autoregressive.pixelcnnpp import PixelCNNpp
from ancestral.models.autoregressive.wavenet import WaveNet
from ancestral.models.latent.sound_vqvae import SoundVQVAE
from ancestral.models.latent.vqvae import VQVAE
from ancestral.spec import Spec
from ancestral.stages import Progress, initialize

GRAY = Spec(shape=(1, 28, 28))
SOUND = Spec(shape=(1, 4096), rate=8000, encoding="mu-law")
VOICES = Spec(shape=(1, 4096), rate=8000, encoding="mu-law", classes=2)


@dataclass(frozen=True)
class Case:
    """A configuration whose first phase is timed."""

    config: Model.Config
    n: int
    """Examples in a batch."""
    spec: Spec = GRAY


CASES = {
    "gated-pixelcnn 28x28 x64": Case(GatedPixelCNN.Config(layers=10, likelihood="logistic-mixture"), 64),
    "pixelcnnpp small 28x28 x16": Case(PixelCNNpp.Config(width=40, blocks=2, components=5), 16),
    "vqvae tokenizer 28x28 x128": Case(VQVAE.Config(), 128),
    "wavenet 4096 x4": Case(WaveNet.Config(width=48, gate_width=48, layers=9, cycles=2), 4, SOUND),
    "sound-vqvae small tokenizer 4096 x8": Case(SoundVQVAE.recipes["small"].model, 8, VOICES),
}

ORDER: dict[Any, tuple[str, ...]] = {
    **dict.fromkeys((conv1d, conv2d), ("stride", "padding", "dilation", "groups")),
    **dict.fromkeys(
        (conv_transpose1d, conv_transpose2d), ("stride", "padding", "output_padding", "groups", "dilation")
    ),
}
"""The options of a convolution after input, weight and bias, as their positions have it."""


class Recorder(TorchFunctionMode):
    """Notes every convolution that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, torch.dtype, Tensor, Tensor, dict[str, Any]]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # fmt: skip
        kwargs = dict(kwargs or {})
        if func in ORDER:
            names = ORDER[func]
            options = dict(zip(names, args[3:], strict=False)) | {
                k: v for k, v in kwargs.items() if k in names
            }
            kind = args[0].device.type
            rounded = torch.is_autocast_enabled(kind)
            dtype = torch.get_autocast_dtype(kind) if rounded else args[0].dtype
            self.calls.append((func, dtype, args[0], args[1], options))
        return func(*args, **kwargs)


def _alone(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    layout = torch.channels_last if tensor.dim() == 4 else torch.preserve_format
    copied = tensor.detach().to(dtype, copy=True, memory_format=layout)
    return copied.requires_grad_(tensor.requires_grad)


def convolutions(model: Model, batch: Batch, precision: torch.dtype) -> tuple[Callable[[], None], float]:
    """The convolutions of a step, forward and backward, alone; and their FLOPs."""
    device = batch.x.device
    with Recorder() as recorder, torch.autocast(device.type, precision, precision != torch.float32):
        model.loss(batch, model.stages()[0].phases[0].name, Progress.at(0, 1, device))
    jobs, flops = [], 0.0
    for function, dtype, *tensors, options in recorder.calls:
        x, weight = (_alone(t, dtype) for t in tensors)
        with torch.no_grad():
            out = function(x, weight, None, **options)
        positions = (x if "transpose" in function.__name__ else out)[:, 0].numel()
        flops += (2 + x.requires_grad) * 2 * weight.numel() * positions
        jobs.append((function, x, weight, options, torch.ones_like(out)))

    def run() -> None:
        for function, x, weight, options, incoming in jobs:
            x.grad = weight.grad = None
            function(x, weight, None, **options).backward(incoming)

    return run, flops


def step(model: Model, batch: Batch, precision: torch.dtype, *, compiled: bool) -> Callable[[], None]:
    phase, progress = model.stages()[0].phases[0], Progress.at(0, 1, batch.x.device)
    optimizer = torch.optim.Adam(phase.parameters, 1e-3, fused=True)
    loss = torch.compile(model.loss, dynamic=False) if compiled else model.loss

    def run() -> None:
        with torch.autocast(batch.x.device.type, precision, precision != torch.float32):
            total = loss(batch, phase.name, progress).total
        total.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def seconds(job: Callable[[], object]) -> tuple[float, float]:
    """By the clock, and by the processor's time."""
    start, processor = time.perf_counter(), time.process_time()
    job()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - processor


def examples(case: Case, device: torch.device) -> Batch:
    """Random ones, of which one sound is shorter."""
    spec, n = case.spec, case.n
    x = torch.randint(spec.discrete_levels, (n, *spec.shape), device=device).to(spec.dtype)
    labels = torch.arange(n, device=device) % spec.classes if spec.classes else None
    lengths = None
    if spec.sequential:
        lengths = torch.full((n,), spec.shape[-1], device=device)
        lengths[-1] = spec.shape[-1] // 2
    return Batch(x, labels, lengths=lengths)


def variants(case: Case) -> dict[str, tuple[torch.dtype, bool, bool]]:
    """Precision, whether the weights are channels last, and whether the step is compiled, by name.

    Of sounds they are always channels last, as trainings have them.
    """
    found = {}
    for kind, precision in (("", torch.float32), ("bf16", torch.bfloat16)):
        for compiled in (False, True):
            for last in (True,) if case.spec.sequential else (False, True):
                shown = "channels-last" if last and not case.spec.sequential else ""
                name = ", ".join(filter(None, (kind, shown, "compiled" if compiled else "")))
                found[name or "plain"] = precision, last, compiled
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="parts of the cases' names; all if none")
    parser.add_argument("--rounds", type=int, default=7, help="steps of each variant, timed in turns")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    keep_freed()  # as a training does
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    processor = platform.processor() or platform.machine()
    print(f"{processor}, {torch.get_num_threads()} threads, torch {torch.__version__}, {device}")
    a = torch.randn(2048, 2048, device=device)
    for name, case in CASES.items():
        if options.names and not any(part in name for part in options.names):
            continue
        torch.manual_seed(0)
        batch = examples(case, device)
        jobs: dict[str, Callable[[], object]] = {"product": lambda: a @ a}
        alone = {torch.float32: "convolutions alone", torch.bfloat16: "bf16, convolutions alone"}
        reference, flops, weights = {}, 0.0, 0
        for key, (precision, last, compiled) in variants(case).items():
            model = case.config.build(case.spec).to(device)
            if last:
                model.to(memory_format=torch.channels_last)
            initialize(model, model.stages()[0], batch)
            if alone[precision] not in jobs:
                jobs[alone[precision]], flops = convolutions(model, batch, precision)
            jobs[key] = step(model, batch, precision, compiled=compiled)
            reference[key] = reference[alone[precision]] = alone[precision]
            weights = sum(p.numel() for phase in model.stages()[0].phases for p in phase.parameters)
        times: dict[str, list[tuple[float, float]]] = {key: [] for key in jobs}
        for job in jobs.values():
            job()
            job()
        for _ in range(options.rounds):
            for key, job in jobs.items():
                times[key].append(seconds(job))
        median = {
            key: tuple(statistics.median(each) for each in zip(*found, strict=True))
            for key, found in times.items()
        }
        peak = 2 * 2048**3 / median.pop("product")[-1]
        print(
            f"\n{name}: {weights / 1e6:.2f}M weights, {flops / 1e9:.1f} GFLOP of convolutions a step, "
            f"product {peak / 1e9:.0f} GFLOP/s of a processor"
        )
        print(f"{'':>30} | {'ms':>8} | {'ratio':>6} | {'cpu ms':>8} | {'ratio':>6} | of peak")
        for key, (clock, busy) in median.items():
            alone_clock, alone_busy = median[reference[key]]
            print(
                f"{key:>30} | {1e3 * clock:8.1f} | {clock / alone_clock:6.2f} "
                f"| {1e3 * busy:8.1f} | {busy / alone_busy:6.2f} | {flops / busy / peak:7.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
