"""The training loop's overhead: the MLP VAE (784-500-20, batch 128) under ``Trainer`` and under a bare loop with fused Adam.

Both do the same work: index a batch of a uint8 tensor, loss, backward, clip, fused Adam. The Trainer also seeds every step, checks the
loss, schedules, logs. Rounds alternate between the contestants; each round's time is that of its steps, set-up left out.

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
from torch import Tensor

from ancestral.data import Dataset, ImageOptions, Split
from ancestral.model import Batch
from ancestral.models.latent.vae import VAE
from ancestral.recipe import Optimization
from ancestral.spec import Spec
from ancestral.training import TrainingOptions
from ancestral.training.loop import Trainer

SPEC = Spec(shape=(1, 28, 28), levels=2)
BATCH = 128


def build() -> VAE:
    torch.manual_seed(0)
    return VAE(VAE.Config(architecture="mlp", latents=20, hidden=500, likelihood="bernoulli"), SPEC)


def bare(x: Tensor, steps: int) -> float:
    """Milliseconds a step of a plain loop."""
    model = build().train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    order = torch.randperm(len(x))
    started = time.perf_counter()
    for step in range(steps):
        start = step * BATCH % (len(x) - BATCH)
        loss = model.loss(Batch(x[order[start : start + BATCH]]), "training")
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return (time.perf_counter() - started) / steps * 1e3


def ours(x: Tensor, steps: int) -> float:
    """Milliseconds a step of the Trainer, by its own metrics from the first entry on."""
    split = Split(x, None)
    data = Dataset(
        source="benchmark",
        spec=SPEC,
        train=split,
        validation=split,
        test=split,
        classes=(),
        fingerprint="",
        skipped=(),
    )
    options = TrainingOptions(
        device="cpu", log_every=50, evaluate_every=0, sample_every=0, checkpoint_every=0, channels_last=False
    )
    optimization = Optimization(steps=steps + 100, batch_size=BATCH, learning_rate=1e-3)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        trainer = Trainer(
            build(),
            data,
            {"training": optimization},
            images=ImageOptions(),
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
    contestants = {"bare loop": bare, "ancestral": ours} | ({"pythae": pythae} if options.peer else {})
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name, contestant in contestants.items():
            times[name].append(contestant(x, options.steps))
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = {
        name: statistics.median(v / b for v, b in zip(values, times["bare loop"], strict=True))
        for name, values in times.items()
    }
    print(
        f"{os.cpu_count()} cores ({platform.machine()}), {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print(
        f"{'loop':<12} {'ms/step':>8} {'ratio':>7}   (medians of {options.rounds} rounds of {options.steps} steps; ratio within a round)"
    )
    for name in contestants:
        print(f"{name:<12} {medians[name]:8.2f} {ratios[name]:7.3f}")


if __name__ == "__main__":
    main()
