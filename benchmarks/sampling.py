"""Streaming against a full pass for each position, for networks of the autoregressive family.

    python benchmarks/sampling.py [NAME ...]

``stream`` is the median time of whole samples. ``full`` is what the same samples take with one pass of the
whole map for each position: the median of a few passes, timed in turns with the streams, times the positions
(every position's pass costs the same). Both run in inference mode, with normalized weights computed once.
``bound`` is the time of the network's multiplications at the speed of a large matrix product of this run: 2
FLOPs for each weight and position. A WaveNet's long sequences are drawn by its compiled loop, where Numba is
installed (``sound.py`` has its stream).
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from ancestral.models.autoregressive.base import Autoregressive
from ancestral.models.autoregressive.gated_pixelcnn import GatedPixelCNN
from ancestral.models.autoregressive.pixelcnnpp import PixelCNNpp
from ancestral.models.autoregressive.pixelsnail import PixelSNAIL
from ancestral.models.autoregressive.transformer import Transformer
from ancestral.models.autoregressive.wavenet import WaveNet
from ancestral.spec import Spec

GREY = Spec(shape=(1, 28, 28))
CODES = Spec(shape=(1, 8, 8), levels=512, domain="codes")


def gated(spec: Spec) -> Autoregressive:
    return GatedPixelCNN(GatedPixelCNN.Config(width=64, layers=10), spec)


def snail() -> Autoregressive:
    """The size of the public VQ-VAE-2 code's default: 4 blocks of 4, 256 channels, kernel 5, 8 heads.

    That code has ELUs where the paper has concatenated ones, which double a convolution's inputs; half the
    hidden channels make up for it.
    """
    heads = {"heads": 8, "key": 32, "value": 32}
    blocks = {"width": 256, "blocks": 4, "residual_blocks": 4, "residual_width": 128, "kernel": 5}
    config = PixelSNAIL.Config(**blocks, **heads, dropout=0.1, likelihood="categorical")  # type: ignore[arg-type]
    return PixelSNAIL(config, CODES)


CASES: dict[str, tuple[Callable[[], Autoregressive], int]] = {
    "gated-pixelcnn 28x28 x64": (lambda: gated(GREY), 64),
    "gated-pixelcnn 8x8 K=512 x64": (lambda: gated(CODES), 64),
    "pixelsnail 85M 8x8 x1": (snail, 1),
    "pixelsnail 85M 8x8 x16": (snail, 16),
    "pixelcnnpp small 28x28 x16": (
        lambda: PixelCNNpp(PixelCNNpp.Config(width=40, blocks=2, components=5), GREY),
        16,
    ),
    "transformer 28x28 x16": (lambda: Transformer(Transformer.Config(), GREY), 16),
    "wavenet 2000 x1": (
        lambda: WaveNet(
            WaveNet.Config(width=32, gate_width=32, skip_width=256, cycles=4), Spec(shape=(1, 2000))
        ),
        1,
    ),
}


def seconds(job: Callable[[], object]) -> float:
    start = time.perf_counter()
    job()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_flops(device: torch.device) -> float:
    a = torch.randn(2048, 2048, device=device)
    out = torch.empty_like(a)
    return 2 * 2048**3 / statistics.median(seconds(lambda: torch.mm(a, a, out=out)) for _ in range(9))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="parts of the cases' names; all if none")
    parser.add_argument(
        "--rounds", type=int, default=3, help="streams and passes of each case, timed in turns"
    )
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    processor = platform.processor() or platform.machine()
    print(f"{processor}, {torch.get_num_threads()} threads, torch {torch.__version__}, {device}")
    print(
        f"{'case':>30} | {'weights':>8} | {'stream s':>9} | {'full s':>9} | {'speed-up':>8} | "
        f"{'bound s':>8} | {'x bound':>7}"
    )
    for name, (build, n) in CASES.items():
        if options.names and not any(part in name for part in options.names):
            continue
        torch.manual_seed(0)
        model = build().to(device).eval()
        x = torch.randint(model.spec.discrete_levels, (n, *model.spec.shape), device=device)
        stream, full = measure(model, n, x, options.rounds)
        weights = sum(
            p.numel()
            for key, p in model.named_parameters()
            if p.dim() > 1 and "table" not in key and "original0" not in key
        )
        bound = 2 * weights * n * model.grid[0] * model.grid[1] / peak_flops(device)
        row = f"{name:>30} | {weights / 1e6:7.2f}M | {stream:9.2f} | {full:9.1f} | {full / stream:8.0f}"
        print(f"{row} | {bound:8.2f} | {stream / bound:7.1f}", flush=True)


def measure(model: Autoregressive, n: int, x: Tensor, rounds: int) -> tuple[float, float]:
    """Seconds of a streamed sample, and of one that takes a full pass for each position."""
    streams, passes = [], []
    for _ in range(rounds):
        streams.append(seconds(lambda: model.sample(n)))
        with parametrize.cached(), torch.inference_mode():
            model.conditionals(x)  # computes the weights
            passes.append(seconds(lambda: model.conditionals(x)))
    return statistics.median(streams), statistics.median(passes) * model.grid[0] * model.grid[1]


if __name__ == "__main__":
    main()
