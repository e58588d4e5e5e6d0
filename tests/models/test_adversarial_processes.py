"""Adversarial models in two processes: trained as by one, whose statistics are of the whole batch."""

import json
from dataclasses import replace

import pytest
import torch

import ancestral
from ancestral.models.adversarial.biggan import BigGAN
from ancestral.models.adversarial.dcgan import DCGAN
from ancestral.models.adversarial.improved_gan import ImprovedGAN
from ancestral.models.adversarial.progan import ProGAN
from ancestral.models.adversarial.stylegan2 import StyleGAN2
from ancestral.models.adversarial.wgan import WGAN
from ancestral.spec import Spec
from ancestral.training import TrainingOptions

OPTIONS = TrainingOptions(
    device="cpu", checkpoint_every=0, evaluate_every=0, sample_every=0, measure_every=0, log_every=1
)
PHASE = {"optimizer": "sgd", "warmup": 0, "learning_rate": 0.05, "gradient_clip": None}
STEPS = {"steps": 4, "batch_size": 16, "ema": 0.5, "phases": {"critic": PHASE, "generator": PHASE}}


class FromExamples:
    """Latents that are pixels of the batch, in place of noise that each process would draw for itself."""

    def loss(self, batch, phase, progress):
        pixels = batch.x.flatten(1)
        chosen = (10 + torch.arange(self.config.latents)) % pixels.shape[1]
        self.pixels = pixels[:, chosen].to(self.dtype) / 8 - 1
        return super().loss(batch, phase, progress)

    def _latents(self, n, generator=None):
        return self.pixels[:n] if self.training else super()._latents(n, generator)


class BatchNormalized(FromExamples, DCGAN):
    """Batch norm in both networks, conditional in the generator."""


class Discriminating(FromExamples, ImprovedGAN):
    """Minibatch discrimination and virtual batch norm."""


class Penalized(FromExamples, WGAN):
    """Gradients of gradients, through a hook that means them over processes."""


class Growing(FromExamples, ProGAN):
    """Deviations over groups of the whole batch, gradients of gradients, and a stage for each resolution."""


class Styled(FromExamples, StyleGAN2):
    """The mean of styles and lazy penalties; without noise and path lengths, which each process draws."""

    def __init__(self, config, spec):
        super().__init__(config, spec)
        planes = self.generator.planes
        self.generator.planes = lambda *arguments: [0 * plane for plane in planes(*arguments)]


class Attending(FromExamples, BigGAN):
    """Spectral norms, conditional batch norms and orthogonal regularization."""


RUNS = {
    "batch-norm": (BatchNormalized, DCGAN.Config(latents=8, width=4, critic_width=4, scales=2)),
    "minibatch": (
        Discriminating,
        ImprovedGAN.Config(
            latents=8, width=4, critic_width=4, scales=2, critic_scales=1, kernels=3, reference=16,
            historical=0.1, dropout=0.0, input_dropout=0.0,
        ),
    ),
    "penalty": (
        Penalized,
        WGAN.Config(
            latents=8, penalty="r1-r2", critic_updates=2,
            architecture=WGAN.Config.tiny().architecture,
        ),
    ),
    "growing": (Growing, replace(ProGAN.Config.tiny(), latents=8, base=4, start=4, penalty="r1")),
    "styles": (
        Styled,
        replace(
            StyleGAN2.Config.tiny(), latents=8, base=4, mixing=0.0, penalty_every=2, path_weight=0.0,
            penalty_weight=0.1,
        ),
    ),
    "attention": (
        Attending,
        BigGAN.Config(
            latents=9, width=4, critic_width=8, scales=2, attention=1, embedding=3, orthogonal=0.1, standing=0
        ),
    ),
}  # fmt: skip


def train_all(out):
    """A few steps of each."""
    for name, (model, config) in RUNS.items():
        named = [stage.name for stage in model(config, Spec(shape=(1, 8, 8), levels=17, classes=10)).stages()]
        stages = {stage: STEPS | {"steps": 4 // len(named)} for stage in named}
        ancestral.train(
            model, data="digits", out=f"{out}/{name}", config=config, stages=stages, options=OPTIONS
        )


@pytest.fixture(scope="module")
def found(tmp_path_factory, in_two_processes):
    """The runs of two processes and of one."""
    folder = tmp_path_factory.mktemp("processes")
    in_two_processes("train_all", folder / "two")
    train_all(folder / "one")
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_play_as_one_does(found, name):
    """The same losses of both sides, and the same samples in the end."""
    losses, images = {}, {}
    for number in ("one", "two"):
        lines = map(json.loads, (found / number / name / "metrics.jsonl").read_text().splitlines())
        lines = [line for line in lines if line.get("split") == "train"]
        losses[number] = [line[f"{side}_loss"] for line in lines for side in ("critic", "generator")]
        model = RUNS[name][0].from_pretrained(found / number / name / "model").eval()
        z = torch.randn(5, model.config.latents, generator=torch.Generator().manual_seed(0))
        labels = torch.arange(5) if model.sample_classes else None
        with torch.no_grad():
            images[number] = model.generate(z, labels)
    assert len(losses["one"]) == 8
    assert len({*losses["one"]}) == 8
    assert losses["two"] == pytest.approx(losses["one"], rel=1e-4)
    # Where all channels of a place are near 0, normalizing it enlarges what rounding leaves.
    atol = 5e-3 if name == "growing" else 2e-4
    torch.testing.assert_close(images["two"], images["one"], rtol=1e-3, atol=atol)
