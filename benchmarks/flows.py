"""Flows: training steps and sampling beside peers, and what reversible training saves.

    pip install zuko nflows
    python benchmarks/flows.py [glow] [maf] [realnvp] [sampling] [memory] [tables]

``glow``: a step at 32x32x3, L=3, K=8, hidden 128, batch 32, beside the same network as scripts have it:
eager, in PyTorch's default memory format, plain matrices whose determinant is computed in each step. ``of
peak`` is the share of the speed of a large matrix product in this run that the multiplications of the
convolutions reach.

``maf`` and ``realnvp``: networks of 63 columns, 5 transformations with two hidden layers of 256, batch 1,024,
beside zuko's and nflows'; a step of training, and (``maf``) 10,000 rows drawn. Our Real NVP coupling has
two networks, for scales and for shifts, that of nflows one: ours are narrower, with as many weights.

``tables``: MAF as the recipe has it and zuko's of the same networks, each trained for ``--seconds`` of the
processor's time, in turns on one thread, by Adam at the same rates; the weights that validation liked best
are tested. With ``--data``, tables other than ``table:patches``.

``sampling``: the time of ``flow.inverse`` beside that of ``flow``, of the recipes' small networks on 64
images, and of an inverse autoregressive flow on 1,024 rows.

``memory``: the most memory that the graph of a Glow step keeps, for K = 8, 16, 32, with and without
``reversible``, and the time of the step.

All contestants take turns; figures are medians.
"""

import argparse
import math
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from ancestral.batch import Batch
from ancestral.data import Dataset, load_data
from ancestral.models.flow.base import Flow
from ancestral.models.flow.flowpp import FlowPP
from ancestral.models.flow.glow import Glow
from ancestral.models.flow.maf import MAF
from ancestral.models.flow.nice import NICE
from ancestral.models.flow.realnvp import RealNVP
from ancestral.spec import Spec
from ancestral.stages import Progress, initialize

GLOW = Glow.Config(levels=3, depth=8, width=128)
COLORS = Spec(shape=(3, 32, 32))
ROWS = Spec(shape=(63,), levels=None)


class PlainActNorm(nn.Module):
    """Activation norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.logs = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The result, and its log-determinant."""
        return (x + self.bias) * torch.exp(3 * self.logs), (3 * self.logs).sum() * x[0, 0].numel()


class PlainZeros(nn.Module):
    """The convolution that is zero at first."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        nn.init.zeros_(self.conv.weight)
        self.logs = nn.Parameter(torch.zeros(1, outputs, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The parameters of a distribution."""
        return self.conv(x) * torch.exp(3 * self.logs)


class PlainStep(nn.Module):
    """One step of the flow."""

    def __init__(self, c: int, width: int) -> None:
        super().__init__()
        self.norm = PlainActNorm(c)
        self.weight = nn.Parameter(torch.linalg.qr(torch.randn(c, c))[0])
        self.first, self.first_norm = nn.Conv2d(c // 2, width, 3, padding=1, bias=False), PlainActNorm(width)
        self.second, self.second_norm = nn.Conv2d(width, width, 1, bias=False), PlainActNorm(width)
        self.last = PlainZeros(width, c)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The result, and its log-determinant."""
        x, total = self.norm(x)
        x = nn.functional.conv2d(x, self.weight[:, :, None, None])
        total = total + torch.slogdet(self.weight)[1] * x[0, 0].numel()
        a, b = x.chunk(2, 1)
        h = torch.relu(self.first_norm(self.first(a))[0])
        h = torch.relu(self.second_norm(self.second(h))[0])
        shift, scale = self.last(h).chunk(2, 1)
        scale = torch.sigmoid(scale + 2)
        return torch.cat([a, (b + shift) * scale], 1), total + scale.log().flatten(1).sum(1)


class PlainGlow(nn.Module):
    """Glow as scripts have it."""

    def __init__(self, levels: int, depth: int, width: int) -> None:
        super().__init__()
        c, self.levels, self.splits = 3, nn.ModuleList(), nn.ModuleList()
        for i in range(levels):
            c *= 4
            self.levels.append(nn.ModuleList(PlainStep(c, width) for _ in range(depth)))
            if i < levels - 1:
                self.splits.append(PlainZeros(c // 2, c))
                c //= 2
        self.top = PlainZeros(1, 2 * c)

    def forward(self, x: Tensor) -> Tensor:
        """The loss."""
        x = (x.float() + torch.rand(x.shape)) / 256 - 0.5
        total = torch.zeros(len(x))
        for i, level in enumerate(self.levels):
            n, c, h, w = x.shape
            x = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(n, 4 * c, h // 2, w // 2)
            for step in level:
                x, log_det = step(x)
                total = total + log_det
            if i < len(self.splits):
                x, z = x.chunk(2, 1)
                mean, logs = self.splits[i](x).chunk(2, 1)
            else:
                z = x
                mean, logs = self.top(torch.zeros(1, 1, *x.shape[2:])).chunk(2, 1)
            density = -logs - 0.5 * ((z - mean) * torch.exp(-logs)).square() - 0.919
            total = total + density.flatten(1).sum(1)
        return -total.mean() / (3072 * 0.6931)


def trained(model: Flow, x: Tensor) -> Flow:
    """Started from data, in training mode and channels last."""
    stage = model.stages()[0]
    initialize(model, stage, Batch(x))
    return model.to(memory_format=torch.channels_last).train()


def step(loss: Callable[[], Tensor], parameters: list[nn.Parameter]) -> Callable[[], None]:
    optimizer = torch.optim.Adam(parameters, 1e-4, fused=True)

    def run() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def seconds(job: Callable[[], object]) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def medians(jobs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    for job in jobs.values():
        job()
        job()
    times = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            times[name].append(seconds(job))
    return {name: statistics.median(values) for name, values in times.items()}


def flops(model: nn.Module, job: Callable[[], object]) -> float:
    """Of the convolutions of a step, forward and backward."""
    total = 0.0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += 3 * 2 * layer.weight.numel() * output[:, 0].numel()

    handles = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d)]
    job()
    for handle in handles:
        handle.remove()
    return total


def loss_of(model: Flow, x: Tensor) -> Callable[[], Tensor]:
    progress = Progress.at(0, 1)
    return lambda: model.loss(Batch(x), "training", progress).total


def glow(rounds: int) -> None:
    x = torch.randint(256, (32, 3, 32, 32)).to(torch.uint8)
    plain = PlainGlow(GLOW.levels, GLOW.depth, GLOW.width)
    jobs = {"plain": step(lambda: plain(x), list(plain.parameters()))}
    models = {}
    for name in ("ours", "compiled"):
        models[name] = model = trained(GLOW.build(COLORS), x)
        loss = loss_of(model, x)
        jobs[name] = step(torch.compile(loss) if name == "compiled" else loss, list(model.parameters()))
    a = torch.randn(2048, 2048)
    work = flops(plain, jobs["plain"])
    jobs["product"] = lambda: a @ a
    t = medians(jobs, rounds)
    peak = 2 * 2048**3 / t["product"]
    print(f"{'glow 32x32x3':>16} | {'ms':>8} | {'speed-up':>8} | {'of peak':>7}")
    for name in ("plain", "ours", "compiled"):
        ratio = t["plain"] / t[name]
        print(f"{name:>16} | {1e3 * t[name]:8.1f} | {ratio:8.2f} | {work / t[name] / peak:7.0%}")


def maf(rounds: int) -> None:
    import zuko  # noqa: PLC0415  # peers need not be there for the rest
    from nflows import distributions, flows, transforms  # noqa: PLC0415

    x = torch.randn(1024, 63)
    model = trained(replace(MAF.Config(), batch_norm=False).build(ROWS), x)
    theirs = zuko.flows.MAF(63, transforms=5, hidden_features=(256, 256))
    parts = []
    for _ in range(5):
        parts.append(transforms.ReversePermutation(63))
        parts.append(
            transforms.MaskedAffineAutoregressiveTransform(63, 256, num_blocks=2, use_residual_blocks=False)
        )
    other = flows.Flow(transforms.CompositeTransform(parts), distributions.StandardNormal([63]))
    loss = loss_of(model, x)
    jobs = {
        "ours": step(loss, list(model.parameters())),
        "compiled": step(torch.compile(loss), list(model.parameters())),
        "zuko": step(lambda: -theirs().log_prob(x).mean(), list(theirs.parameters())),
        "nflows": step(lambda: -other.log_prob(x).mean(), list(other.parameters())),
    }
    t = medians(jobs, rounds)
    model.eval()
    with torch.no_grad():
        draws = {
            "ours": lambda: model.sample(10_000),
            "zuko": lambda: theirs().sample((10_000,)),
            "nflows": lambda: other.sample(10_000),
        }
        d = medians(draws, max(2, rounds // 3))
        z = torch.randn(10_000, 63)
        once = medians({"forward": lambda: model.flow(z)}, rounds)["forward"]
    print(f"{'maf, 63 columns':>16} | {'step ms':>8} | {'x ours':>8} | {'10,000 rows s':>13} | {'x ours':>8}")
    for name in t:
        drawn = f"{d[name]:13.3f} | {d[name] / d['ours']:8.1f}" if name in d else f"{'':>13} |"
        print(f"{name:>16} | {1e3 * t[name]:8.1f} | {t[name] / t['ours']:8.2f} | {drawn}")
    print(f"one pass of 10,000 rows: {once:.3f} s; drawing takes {d['ours'] / once:.1f} times that")


def tables(sources: list[str], budget: float) -> None:
    import zuko  # noqa: PLC0415  # a peer, which need not be there for the rest

    torch.set_num_threads(1)
    print(f"{'test nats':>16} | {'ours':>8} | {'zuko':>8} | {'steps':>6} | {'zuko':>6}")
    for source in sources:
        data = load_data(source)
        (dims,) = data.spec.shape
        model = MAF.Config().build(data.spec)
        theirs = zuko.flows.MAF(dims, transforms=5, hidden_features=(256, 256))
        densities = {
            "ours": (model, lambda x, model=model: model.log_likelihood(Batch(x))),
            "zuko": (theirs, lambda x, theirs=theirs: theirs().log_prob(x)),
        }
        ours, peer = (Contestant(*densities[name], data, budget) for name in ("ours", "zuko"))
        while not (ours.done and peer.done):
            ours.go_on()
            peer.go_on()
        found = [c.test() + data.log_determinant for c in (ours, peer)]
        name = source.rpartition("/")[2].removeprefix("table:")
        print(f"{name:>16} | {found[0]:8.3f} | {found[1]:8.3f} | {ours.steps:6} | {peer.steps:6}", flush=True)


class Contestant:
    """A density that is trained for so many seconds of the processor's time, a part of them at a time."""

    PARTS = 20

    def __init__(
        self, model: nn.Module, density: Callable[[Tensor], Tensor], data: Dataset, budget: float
    ) -> None:
        self.model, self.density, self.data, self.budget = model, density, data, budget
        self.optimizer = torch.optim.Adam(model.parameters(), fused=True)
        self.spent, self.steps, self.best, self.kept = 0.0, 0, -math.inf, {}

    @property
    def done(self) -> bool:
        """Whether it has used its time."""
        return self.spent >= self.budget

    def go_on(self) -> None:
        """Train for the next part of the time, and validate."""
        until = min(self.spent + self.budget / self.PARTS, self.budget)
        self.model.train()
        while self.spent < until:
            start = time.process_time()
            share = min(self.spent / self.budget, 1)
            rate = 1e-3 * 0.5 * (1 + math.cos(math.pi * share))
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            x = self.data.train.x[torch.randint(len(self.data.train), (256,))]
            (-self.density(x).mean() / x.shape[1]).backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.steps += 1
            self.spent += time.process_time() - start
        found = self.mean(self.data.validation.x)
        if found > self.best:
            self.best = found
            self.kept = {name: value.clone() for name, value in self.model.state_dict().items()}

    @torch.no_grad()
    def mean(self, x: Tensor) -> float:
        """The mean log density of rows, in nats."""
        self.model.eval()
        return float(torch.cat([self.density(part) for part in x.split(1024)]).double().mean())

    def test(self) -> float:
        """The same of test rows by the best weights."""
        self.model.load_state_dict(self.kept)
        return self.mean(self.data.test.x)


def realnvp(rounds: int) -> None:
    from nflows import distributions, flows, transforms  # noqa: PLC0415
    from nflows.nn.nets import MLP  # noqa: PLC0415

    x = torch.randn(1024, 63)
    model = trained(RealNVP.Config(width=184, blocks=2, couplings=5).build(ROWS), x)

    class Network(MLP):
        """Theirs, as their coupling calls it."""

        def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
            """The parameters."""
            return super().forward(inputs)

    def network(inputs: int, outputs: int) -> nn.Module:
        return Network((inputs,), (outputs,), (256, 256))

    mask, parts = torch.arange(63) % 2, []
    for _ in range(5):
        parts.append(transforms.AffineCouplingTransform(mask, network))
        parts.append(transforms.BatchNorm(63))
        mask = 1 - mask
    other = flows.Flow(transforms.CompositeTransform(parts), distributions.StandardNormal([63]))
    loss = loss_of(model, x)
    jobs = {
        "ours": step(loss, list(model.parameters())),
        "compiled": step(torch.compile(loss), list(model.parameters())),
        "nflows": step(lambda: -other.log_prob(x).mean(), list(other.parameters())),
    }
    t = medians(jobs, rounds)
    print(f"{'realnvp, 63 cols':>16} | {'step ms':>8} | {'x ours':>8} | {'weights':>9}")
    sizes = {"ours": model, "compiled": model, "nflows": other}
    for name in t:
        weights = sum(p.numel() for p in sizes[name].parameters())
        print(f"{name:>16} | {1e3 * t[name]:8.1f} | {t[name] / t['ours']:8.2f} | {weights:9,}")


def sampling(rounds: int) -> None:
    gray, rows = Spec(shape=(1, 28, 28)), torch.randn(1024, 63)
    images = torch.randint(256, (64, 1, 28, 28))
    print(f"{'':>16} | {'forward s':>9} | {'inverse s':>9} | {'ratio':>6}")
    for name, config, spec, x in (
        ("nice", NICE.recipes["small"].model, gray, images),
        ("realnvp", RealNVP.recipes["small"].model, gray, images),
        ("glow", Glow.recipes["small"].model, gray, images),
        ("flowpp", FlowPP.recipes["small"].model, gray, images),
        ("iaf of rows", MAF.Config(inverse=True, batch_norm=False), ROWS, rows),
    ):
        model = config.build(spec)
        if spec.levels is not None:
            trained(model, x)
        model.eval()
        with torch.no_grad():
            y = x.float() + (0.5 if spec.levels is not None else 0)
            z, _ = model.flow(y)
            jobs = {
                "forward": lambda m=model, y=y: m.flow(y),
                "inverse": lambda m=model, z=z: m.flow.inverse(z),
            }
            t = medians(jobs, rounds)
        ratio = t["inverse"] / t["forward"]
        print(f"{name:>16} | {t['forward']:9.3f} | {t['inverse']:9.3f} | {ratio:6.2f}", flush=True)


def memory(rounds: int) -> None:
    x = torch.randint(256, (32, 3, 32, 32)).to(torch.uint8)
    print(
        f"{'glow 32x32x3':>16} | {'plain MiB':>9} | {'reversible':>10} | {'plain ms':>8} | {'reversible':>10}"
    )
    for depth in (8, 16, 32):
        kept, jobs = {}, {}
        for reversible in (False, True):
            config = replace(GLOW, depth=depth, reversible=reversible)
            model = trained(config.build(COLORS), x)
            own, total = {p.data_ptr() for p in model.parameters()}, 0

            def count(tensor: Tensor, own: set[int] = own) -> Tensor:
                nonlocal total
                if tensor.data_ptr() not in own:
                    own.add(tensor.data_ptr())
                    total += tensor.numel() * tensor.element_size()
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
                loss_of(model, x)()
            kept[reversible] = total / 2**20
            jobs[str(reversible)] = step(loss_of(model, x), list(model.parameters()))
        t = medians(jobs, max(2, rounds // 3))
        print(f"{f'K={depth}':>16} | {kept[False]:9.1f} | {kept[True]:10.1f} | {1e3 * t['False']:8.1f} | "
              f"{1e3 * t['True']:10.1f}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = {"glow": glow, "maf": maf, "realnvp": realnvp, "sampling": sampling, "memory": memory}
    parser.add_argument("parts", nargs="*", help=f"{', '.join(parts)}, tables; all if none")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--data", nargs="+", default=["table:patches"])
    parser.add_argument("--seconds", type=float, default=120.0)
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, "
          f"torch {torch.__version__}")  # fmt: skip
    for name, part in parts.items():
        if name in options.parts or not options.parts:
            print()
            part(options.rounds)
    if "tables" in options.parts or not options.parts:
        print()
        tables(options.data, options.seconds)


if __name__ == "__main__":
    main()
