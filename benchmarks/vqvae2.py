"""VQ-VAE-2: the training step beside a plain implementation, sampling, and code maps from many images.

    python benchmarks/vqvae2.py [step] [sampling] [codes] [bulk] [memory]

``step``: a step of the tokenizer with the paper's widths (128, 64, 2 blocks, K=512, squared error) beside the
same networks written the plain way: eager, in PyTorch's default memory format, quantized by full distances,
a one-hot matrix and its products. Both in turns; medians; in float32 and under autocast to bfloat16 (as
``--precision bf16-mixed``). ``of peak`` is the share of the speed of a large matrix product in the same
arithmetic that the multiplications of the convolutions reach.

``sampling``: 64 images from priors of 7x7 and 14x14 codes (the recipe ``small``), with the time of each
level, and of four times as many positions.

``codes``: code maps of n small images that lie in a file (memory-mapped), n doubling: seconds an image must
not grow. ``bulk``: the same of n small images drawn into shards.

``memory``: a training step of each stage of the recipes ``small`` (28x28) and ``medium`` (256x256, 32x32 and
64x64 maps of 512 codes) on random examples, each in a process of its own: what it takes at most.

Each prints the peak memory of its process so far, which a process of its own (one part named) makes that of
the part.
"""

import argparse
import multiprocessing
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, one_hot

from ancestral.batch import Batch
from ancestral.data import Dataset
from ancestral.evaluation import sample_shards, tokenize_shards
from ancestral.model import repeated_blocks
from ancestral.models.latent.vqvae2 import VQVAE2
from ancestral.spec import Spec
from ancestral.stages import Progress, initialize
from ancestral.training.recompute import recomputed

WIDTH, HIDDEN, BLOCKS, K, D = 128, 64, 2, 512, 64


class NaiveQuantizer(nn.Module):
    """Full distances, argmin, a one-hot matrix, running means by products: as it is usually written."""

    def __init__(self) -> None:
        super().__init__()
        codebook = torch.randn(D, K)
        self.register_buffer("codebook", codebook)
        self.register_buffer("counts", torch.ones(K))
        self.register_buffer("sums", codebook.clone())

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Quantized features, and the commitment."""
        z = z.permute(0, 2, 3, 1)
        flat = z.reshape(-1, D)
        distance = flat.pow(2).sum(1, keepdim=True) - 2 * flat @ self.codebook + self.codebook.pow(2).sum(0)
        index = distance.argmin(1)
        hot = one_hot(index, K).to(flat.dtype)
        quantized = self.codebook.T[index].view_as(z)
        with torch.no_grad():
            self.counts.mul_(0.99).add_(hot.sum(0), alpha=0.01)
            self.sums.mul_(0.99).add_(flat.T @ hot, alpha=0.01)
            n = self.counts.sum()
            self.codebook.copy_(self.sums / ((self.counts + 1e-5) / (n + K * 1e-5) * n))
        loss = mse_loss(z, quantized.detach())
        return (z + (quantized - z).detach()).permute(0, 3, 1, 2), loss


def block() -> nn.Module:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.ReLU(), nn.Conv2d(WIDTH, HIDDEN, 3, padding=1), nn.ReLU(), nn.Conv2d(HIDDEN, WIDTH, 1)
            )

        def forward(self, x: Tensor) -> Tensor:
            return x + self.body(x)

    return Block()


def encoder(channels: int, downs: int) -> nn.Module:
    widths = [WIDTH // 2] * (downs - 1) + [WIDTH]
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.ReLU()]
        channels = width
    return nn.Sequential(
        *layers, nn.Conv2d(channels, WIDTH, 3, padding=1), *[block() for _ in range(BLOCKS)], nn.ReLU(),
        nn.Conv2d(WIDTH, WIDTH, 1),
    )  # fmt: skip


def decoder(channels: int, out: int, ups: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(channels, WIDTH, 3, padding=1), *[block() for _ in range(BLOCKS)]]
    width = WIDTH
    for _ in range(ups):
        layers += [nn.ReLU(), nn.ConvTranspose2d(width, width // 2, 4, stride=2, padding=1)]
        width //= 2
    return nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(width, out, 1))


class Plain(nn.Module):
    """The networks of ``VQVAE2`` with strides 8 and 4, as a script has them."""

    def __init__(self) -> None:
        super().__init__()
        self.bottom, self.top = encoder(3, 2), nn.Sequential(nn.ReLU(), encoder(WIDTH, 1))
        self.to_top, self.to_bottom = nn.Conv2d(WIDTH, D, 1), nn.Conv2d(2 * WIDTH, D, 1)
        self.quantize_top, self.quantize_bottom = NaiveQuantizer(), NaiveQuantizer()
        self.decode_top, self.up = decoder(D, WIDTH, 1), nn.ConvTranspose2d(D, D, 4, stride=2, padding=1)
        self.decode = decoder(2 * D, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """The loss."""
        scaled = x.float() / 127.5 - 1
        bottom = self.bottom(scaled)
        top, top_loss = self.quantize_top(self.to_top(self.top(bottom)))
        both = torch.cat([self.decode_top(top), bottom], 1)
        lower, lower_loss = self.quantize_bottom(self.to_bottom(both))
        decoded = self.decode(torch.cat([self.up(top), lower], 1))
        return mse_loss(decoded, scaled) + 0.25 * (top_loss + lower_loss)


CONFIG = replace(
    VQVAE2.recipes["imagenet256"].model,
    top_prior=VQVAE2.Config.tiny().top_prior,
    lower_prior=VQVAE2.Config.tiny().lower_prior,
)


def training(
    loss: Callable[[], Tensor], parameters: list[nn.Parameter], dtype: torch.dtype
) -> Callable[[], None]:
    optimizer = torch.optim.Adam(parameters, 3e-4, fused=True)

    def run() -> None:
        with torch.autocast(parameters[0].device.type, dtype, enabled=dtype != torch.float32):
            total = loss()
        total.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def flops(model: nn.Module, job: Callable[[], object]) -> float:
    """Of the convolutions of a step, forward and backward."""
    total = 0.0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
        positions = (inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output)[:, 0].numel()
        total += 3 * 2 * layer.weight.numel() * positions

    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    job()
    for handle in handles:
        handle.remove()
    return total


def seconds(job: Callable[[], object]) -> float:
    start = time.perf_counter()
    job()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_memory() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB on the GPU"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"


def step(device: torch.device, rounds: int) -> None:
    print(f"{'step, batch 32':>16} | {'plain ms':>8} | {'ours ms':>8} | {'compiled':>8} | {'images/s':>8} | "
          f"{'speed-up':>8} | {'compiled':>8} | {'of peak':>7} | memory")  # fmt: skip
    for size in (32, 64):
        for dtype in (torch.float32, torch.bfloat16):
            step_of(size, dtype, device, rounds)


def step_of(size: int, dtype: torch.dtype, device: torch.device, rounds: int) -> None:
    x = torch.randint(256, (32, 3, size, size), device=device).to(torch.uint8)
    batch, progress = Batch(x), Progress.at(0, 1, device)
    plain = Plain().to(device)
    jobs = {"plain": training(lambda: plain(x), list(plain.parameters()), dtype)}
    ours = {}
    for key in ("ours", "compiled"):
        ours[key] = CONFIG.build(Spec(shape=(3, size, size))).to(device)
        ours[key].to(memory_format=torch.channels_last)
        stage = ours[key].stages()[0]
        initialize(ours[key], stage, batch)
        ours[key].train()
        loss = torch.compile(ours[key].loss, dynamic=False) if key == "compiled" else ours[key].loss
        jobs[key] = training(
            lambda f=loss: f(batch, "tokenizer", progress).total, list(stage.phases[0].parameters), dtype
        )
    work = flops(ours["ours"], jobs["ours"])
    assert work == flops(plain, jobs["plain"]), "the networks are not the same"
    a = torch.randn(2048, 2048, device=device, dtype=dtype)
    jobs["product"] = lambda: a @ a
    times: dict[str, list[float]] = {key: [] for key in jobs}
    for job in jobs.values():
        job()
        job()
    for _ in range(rounds):
        for key, job in jobs.items():
            times[key].append(seconds(job))
    t = {key: statistics.median(values) for key, values in times.items()}
    peak = 2 * 2048**3 / t["product"]
    best = min(t["ours"], t["compiled"])
    name = f"{size}x{size}x3 {'f32' if dtype == torch.float32 else 'bf16'}"
    print(f"{name:>16} | {1e3 * t['plain']:8.1f} | {1e3 * t['ours']:8.1f} | "
          f"{1e3 * t['compiled']:8.1f} | {32 / best:8.1f} | {t['plain'] / t['ours']:8.2f} | "
          f"{t['plain'] / t['compiled']:8.2f} | {work / best / peak:7.0%} | {peak_memory()}",
          flush=True)  # fmt: skip


def drawing(model: VQVAE2, labels: Tensor) -> tuple[float, ...]:
    """Seconds for the codes of both levels, for their decoding, and for all of it in one call."""
    (top_prior, bottom_prior), n, made = model.level_priors, len(labels), list[Tensor]()
    top = seconds(lambda: made.append(top_prior.sample(n, labels)))
    bottom = seconds(lambda: made.append(bottom_prior.sample(n, labels, contexts=made[:1])))
    decoder = seconds(lambda: model.detokenize([level.long() for level in made]))
    return top, bottom, decoder, seconds(lambda: model.sample(n, labels))


def sampling(device: torch.device, rounds: int) -> None:
    print(f"{'64 samples':>16} | {'top s':>8} | {'bottom s':>8} | {'decoder s':>9} | {'all s':>8} | "
          f"{'us/code':>8} | memory")  # fmt: skip
    for size in (28, 56):
        spec = Spec(shape=(1, size, size), classes=10)
        model = VQVAE2.recipes["small"].model.build(spec).to(device).eval()
        labels = torch.arange(64, device=device) % 10
        times = [drawing(model, labels) for _ in range(rounds + 1)]
        t = [statistics.median(column) for column in zip(*times[1:], strict=True)]
        codes = sum(code.dims for code in model.code_specs())
        grids = " + ".join("x".join(map(str, code.shape[1:])) for code in model.code_specs())
        print(f"{grids:>16} | {t[0]:8.2f} | {t[1]:8.2f} | {t[2]:9.2f} | {t[3]:8.2f} | "
              f"{1e6 * t[3] / codes:8.0f} | {peak_memory()}")  # fmt: skip


def codes(device: torch.device, most: int) -> None:
    print(f"{'n, 16x16x3':>16} | {'s':>8} | {'us/image':>8} | memory")
    config = replace(CONFIG, width=32, residual_width=16)
    spec = Spec(shape=(3, 16, 16))
    model = config.build(spec).to(device).eval()
    few = Batch(torch.zeros(1, *spec.shape, dtype=torch.uint8))
    n = most // 8
    while n <= most:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "images.npy"
            images = np.lib.format.open_memmap(path, "w+", np.uint8, (n, *spec.shape))
            for start in range(0, n, 10_000):
                part = images[start : start + 10_000]
                part[:] = np.random.default_rng(start).integers(256, size=part.shape, dtype=np.uint8)
            del images
            x = Batch(torch.from_numpy(np.load(path, mmap_mode="r+")))
            data = Dataset(source="random", spec=spec, train=x, validation=few, test=few, fingerprint=str(n))
            took = seconds(partial(tokenize_shards, model, Path(folder) / "codes", data))
        print(f"{n:16,} | {took:8.1f} | {1e6 * took / n:8.1f} | {peak_memory()}", flush=True)
        n *= 2


def bulk(device: torch.device, most: int) -> None:
    print(f"{'n, 16x16x3 drawn':>16} | {'s':>8} | {'us/image':>8} | memory")
    model = replace(CONFIG, width=32, residual_width=16).build(Spec(shape=(3, 16, 16))).to(device).eval()
    n = most // 8
    while n <= most:
        with tempfile.TemporaryDirectory() as folder:
            took = seconds(partial(sample_shards, model, n, Path(folder) / "samples"))
        print(f"{n:16,} | {took:8.1f} | {1e6 * took / n:8.1f} | {peak_memory()}", flush=True)
        n *= 2


CASES = {"small": Spec(shape=(1, 28, 28), classes=10), "medium": Spec(shape=(3, 256, 256), classes=10)}


def memory_of(recipe: str, stage_name: str) -> None:
    """One step of a stage, batch and parts as in the recipe; runs in a process of its own."""
    spec, chosen = CASES[recipe], VQVAE2.recipes[recipe]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = chosen.model.build(spec).to(device)
    stage = next(stage for stage in model.stages() if stage.name == stage_name)
    optimization = chosen.stages[stage_name]
    part = optimization.batch_size // optimization.accumulate

    def random(of: Spec) -> Tensor:
        return torch.randint(of.discrete_levels, (part, *of.shape), device=device).to(of.dtype)

    labels = torch.arange(part, device=device) % spec.classes
    if stage_name == "tokenizer":
        batch = Batch(random(spec), labels)
    else:
        prior = model.level_priors[model.level_names.index(stage_name)].spec
        batch = Batch(random(prior), labels, tuple(map(random, prior.contexts)))
    initialize(model, stage, batch)
    model.train()
    parameters = list(stage.phases[0].parameters)
    optimizer = torch.optim.Adam(parameters, 1e-3)
    progress, blocks = Progress.at(0, 1, device), repeated_blocks(model, stage.modules)

    def run() -> None:
        with recomputed(blocks if optimization.recompute else ()):
            model.loss(batch, stage_name, progress).total.backward()
        optimizer.step()
        optimizer.zero_grad()

    run()
    took = seconds(run) * optimization.accumulate
    weights, parts = sum(p.numel() for p in parameters) / 1e6, optimization.accumulate
    batch_size = f"{optimization.batch_size} in {parts}"
    print(
        f"{f'{recipe} {stage_name}':>16} | {weights:7.2f}M | {batch_size:>9} | {took:7.2f} | {peak_memory()}",
        flush=True,
    )


def memory() -> None:
    print(f"{'stage':>16} | {'weights':>8} | {'batch':>9} | {'s/step':>7} | memory", flush=True)
    context = multiprocessing.get_context("spawn")
    for recipe in CASES:
        for stage in VQVAE2.recipes[recipe].stages:
            process = context.Process(target=memory_of, args=(recipe, stage))
            process.start()
            process.join()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help="step, sampling, codes, bulk, memory; all if none")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=200_000, help="most images of codes and bulk")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    processor = platform.processor() or platform.machine()
    print(f"{processor}, {torch.get_num_threads()} threads, torch {torch.__version__}, {device}")
    parts = {
        "step": lambda: step(device, options.rounds),
        "sampling": lambda: sampling(device, options.rounds),
    }
    parts |= {"codes": lambda: codes(device, options.images), "bulk": lambda: bulk(device, options.images)}
    parts |= {"memory": memory}
    for name, part in parts.items():
        if name in options.parts or not options.parts:
            print()
            part()


if __name__ == "__main__":
    main()
