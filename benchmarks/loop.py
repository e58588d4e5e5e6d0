"""The training loop's overhead: the MLP VAE (784-500-20, batch 128) under ``Trainer`` and under bare loops.

All do the same work: index a batch of a uint8 tensor, loss, backward, clip, fused Adam. The Trainer also
seeds every step, checks the loss, schedules, logs. One bare loop computes this library's loss; the other is
what one would write by hand for this model alone. Rounds alternate between the contestants; each round's time
is that of its steps, set-up left out.

    python benchmarks/loop.py
    python benchmarks/loop.py --peer      # pythae's trainer as well (pip install 'ancestral[benchmark]')
"""

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ancestral.batch import Batch
from ancestral.data import Dataset
from ancestral.models.latent.vae import MLP, VAE
from ancestral.recipe import Optimization
from ancestral.spec import Spec
from ancestral.stages import Progress
from ancestral.training import TrainingOptions
from ancestral.training.loop import Trainer

SPEC = Spec(shape=(1, 28, 28), levels=2)
BATCH = 128


def build() -> VAE:
    torch.manual_seed(0)
    return VAE(VAE.Config(architecture=MLP(hidden=500), latents=20, likelihood="bernoulli"), SPEC)


def bare(x: Tensor, steps: int) -> float:
    """Milliseconds a step of a plain loop."""
    model = build().train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    order, progress = torch.randperm(len(x)), Progress.at(0, steps)
    started = time.perf_counter()
    for step in range(steps):
        start = step * BATCH % (len(x) - BATCH)
        loss = model.loss(Batch(x[order[start : start + BATCH]]), "training", progress)
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return (time.perf_counter() - started) / steps * 1e3


def by_hand(x: Tensor, steps: int) -> float:
    """Milliseconds a step of the same network with its loss written out, for this model alone."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 500), nn.Tanh(), nn.Linear(500, 40))
    decoder = nn.Sequential(nn.Linear(20, 500), nn.Tanh(), nn.Linear(500, 784))
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, 1e-3, fused=True)
    order = torch.randperm(len(x))
    started = time.perf_counter()
    for step in range(steps):
        start = step * BATCH % (len(x) - BATCH)
        batch = x[order[start : start + BATCH]].float().flatten(1)
        mean, log_std = encoder(batch * 2 - 1).chunk(2, 1)
        std = log_std.exp()
        logits = decoder(mean + std * torch.randn_like(std))
        distortion = binary_cross_entropy_with_logits(logits, batch, reduction="sum") / BATCH
        rate = 0.5 * (mean.square() + std.square() - 1 - 2 * log_std).sum() / BATCH
        (distortion + rate).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return (time.perf_counter() - started) / steps * 1e3


def ours(x: Tensor, steps: int) -> float:
    """Milliseconds a step of the Trainer, by its own metrics from the first entry on."""
    data = Dataset(source="benchmark", spec=SPEC, train=Batch(x), validation=Batch(x), test=Batch(x[:1]))
    options = TrainingOptions(
        device="cpu", log_every=50, evaluate_every=0, sample_every=0, checkpoint_every=0, channels_last=False
    )
    optimization = Optimization(steps=steps + 100, batch_size=BATCH, learning_rate=1e-3)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        trainer = Trainer(
            build(),
            data,
            {"training": optimization},
            options=options,
            path=Path(folder),
        )
        trainer.fit()
        lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    entries = [line for line in lines if line["split"] == "train"]
    return (entries[-2]["seconds"] - entries[0]["seconds"]) / (entries[-2]["step"] - entries[0]["step"]) * 1e3


def pythae(x: Tensor, steps: int) -> float:
    """Milliseconds a step of pythae's BaseTrainer on its own VAE of the same sizes."""
    from pythae.models import VAE as PythaeVAE  # noqa: N811, PLC0415 - an optional peer
    from pythae.models import VAEConfig  # noqa: PLC0415
    from pythae.trainers import BaseTrainer, BaseTrainerConfig  # noqa: PLC0415

    images = x[: steps * BATCH].float()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        from pythae.data.datasets import BaseDataset  # noqa: PLC0415

        model = PythaeVAE(VAEConfig(input_dim=(1, 28, 28), latent_dim=20, reconstruction_loss="bce"))
        config = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=1,
            per_device_train_batch_size=BATCH,
            learning_rate=1e-3,
            no_cuda=True,
        )
        data = BaseDataset(images, torch.zeros(len(images)))
        trainer = BaseTrainer(model, data, training_config=config)
        trainer.prepare_training()
        started = time.perf_counter()
        trainer.train_step(1)
        return (time.perf_counter() - started) / (len(images) // BATCH) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9, help="rounds, of which the medians are shown")
    parser.add_argument("--steps", type=int, default=300, help="steps of each contestant in a round")
    parser.add_argument("--peer", action="store_true", help="time pythae's trainer too")
    options = parser.parse_args()

    x = torch.randint(2, (60_000, 1, 28, 28), dtype=torch.uint8)
    peers = {"pythae": pythae} if options.peer else {}
    contestants = {"by hand": by_hand, "bare loop": bare, "ancestral": ours} | peers
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name, contestant in contestants.items():
            times[name].append(contestant(x, options.steps))
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = {
        name: statistics.median(v / b for v, b in zip(values, times["by hand"], strict=True))
        for name, values in times.items()
    }
    print(
        f"{os.cpu_count()} cores ({platform.machine()}), {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}"
    )
    print(
        f"{'loop':<12} {'ms/step':>8} {'ratio':>7}   "
        f"(medians of {options.rounds} rounds of {options.steps} steps; ratio within a round)"
    )
    for name in contestants:
        print(f"{name:<12} {medians[name]:8.2f} {ratios[name]:7.3f}")


if __name__ == "__main__":
    main()
