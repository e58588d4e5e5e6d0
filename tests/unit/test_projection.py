"""Latents of images that a generator did not make."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import ancestral
from ancestral.errors import UserError
from ancestral.evaluation.extractors import Extractor
from ancestral.evaluation.projection import _spread, project
from ancestral.measures.imagenet import ImageNet
from ancestral.measures.inception import Inception
from ancestral.models.adversarial.dcgan import DCGAN
from ancestral.models.adversarial.stylegan2 import StyleGAN2
from ancestral.models.latent.vae import VAE
from ancestral.sampling import Sampling
from ancestral.spec import Spec
from ancestral.training import TrainingOptions

GRAY = Spec(shape=(1, 8, 8), levels=17, classes=3)
QUICK = TrainingOptions(
    device="cpu", evaluate_every=0, sample_every=0, checkpoint_every=0, measure_every=0, log_every=1
)


def pronounced(config, spec):
    """A model whose images differ, as those of a trained one do."""
    torch.manual_seed(0)
    model = config.build(spec).eval()
    with torch.no_grad():
        for weight in model.generator.parameters() if isinstance(model, DCGAN) else ():
            if weight.dim() > 1:
                weight.mul_(3.0)
    return model


@pytest.mark.parametrize(
    "config",
    [DCGAN.Config(latents=4, width=4, critic_width=4, scales=1), StyleGAN2.Config.tiny()],
    ids=["latents", "styles"],
)
def test_an_image_of_the_model_is_found_with_its_class(config):
    model = pronounced(config, replace(GRAY, levels=256))
    z, labels = model.draw_latents(2, Sampling(), torch.Generator().manual_seed(3)), torch.tensor([2, 1])
    x = model.decode(z, labels)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    found = project(model, x, labels.tolist(), steps=150, starts=6)
    assert (found.psnr > 20).all(), found.psnr
    assert torch.equal(found.labels, labels)
    assert found.images.dtype == torch.uint8
    assert found.way.shape == (2, 8, 1, 8, 8)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    again = project(model, x, labels.tolist(), steps=150, starts=6)
    assert torch.equal(found.vectors, again.vectors)
    tried = project(model, x, steps=60, starts=2)
    assert {*tried.labels.tolist()} <= {0, 1, 2}
    first, last = ((model.spec.scale(i, torch.float32) - model.spec.scale(x, torch.float32)).square().mean()
                   for i in (tried.way[:, 0], tried.images))  # fmt: skip
    assert last < first


def test_what_cannot_be_projected_is_said():
    model = VAE(VAE.Config.tiny(), GRAY).eval()
    x = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(UserError, match="expected a model that renders images, got VAE; use reconstruct"):
        project(model, x)
    plain = DCGAN(replace(DCGAN.Config.tiny(), class_conditional=False), GRAY).eval()
    with pytest.raises(UserError, match="expected no labels"):
        project(plain, x, [1])
    with pytest.raises(UserError, match="expected at least 1 step"):
        project(plain, x, steps=0)
    with pytest.raises(UserError, match="expected at least 1 image to project, got none"):
        project(plain, x[:0])


class Strict(nn.Module):
    """Features that refuse what is no image, as those of ImageNet do."""

    def forward(self, x):
        assert x.min() >= 0
        assert x.max() <= 1
        return x.flatten(1)


@pytest.mark.parametrize("where", [torch.no_grad, torch.inference_mode])
def test_images_beyond_the_range_have_features_and_gradients_are_had_anywhere(where):
    """Of generators that end linearly, as StyleGAN2's does."""
    model = pronounced(StyleGAN2.Config.tiny(), replace(GRAY, classes=0))
    with torch.no_grad():
        model.generator.color_bias += 2.0
    extractor = Extractor("strict", "", Strict(), model.spec, 64)
    x = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    with where():
        found = project(model, x, extractor=extractor, steps=8)
    assert found.distance.isfinite().all()


def test_noise_on_styles_is_as_long_as_styles_are_apart():
    v = torch.randn(50_000, 1, 7).expand(-1, 3, -1)
    assert _spread(v).item() == pytest.approx(7**0.5, rel=0.02)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of four steps."""
    path = tmp_path_factory.mktemp("runs")
    stages = {"training": {"steps": 4, "batch_size": 32}}
    config = DCGAN.Config(latents=4, width=4, critic_width=4, scales=1)
    ancestral.train("dcgan", data="digits", out=path / "gan", config=config, stages=stages, options=QUICK)
    return path


def test_files_are_resized_and_both_pictures_and_vectors_written(call, tmp_path):
    Image.fromarray(np.full((20, 16, 3), 90, np.uint8)).save(tmp_path / "photo.png")
    line = "project RUNS/gan photo.png --features none --steps 5 --starts 2"
    status, output, errors = call(f"{line} --labels 3 --out .")
    assert (status, errors) == (0, "")
    lines = output.splitlines()
    assert lines[0] == "photo.png: 20 high and 16 wide, its center resized to 8x8"
    assert lines[1].startswith("photo.png: 3, ")
    assert lines[1].endswith(" dB PSNR")
    assert lines[2] == "projections.png"
    found = np.load("projections.npz")
    assert found["vectors"].shape == (1, 4)
    assert found["labels"].tolist() == [3]
    with Image.open("projections.png") as image:
        assert image.width > 5 * image.height
    for wrong, message in (
        ("project RUNS/gan", "expected images to project, got none; name them before the options"),
        ("project RUNS/gan missing.png", "expected the file of an image, got missing.png; check the path"),
        ("project RUNS/gan photo.png --labels 11", "11"),
        ("project RUNS/gan photo.png --steps 0", "expected at least 1 step and 1 start, got 0 and 4"),
        ("project RUNS/gan photo.png --features nothing", "expected features classifier, imagenet"),
    ):
        status, _, errors = call(wrong)
        assert (status, errors.count("\n")) == (2, 1), errors
        assert message in errors
    (tmp_path / "text.png").write_text("no image")
    status, _, errors = call("project RUNS/gan text.png")
    assert status == 2
    assert "expected an image in text.png" in errors


def test_many_images_are_looked_for_in_parts(monkeypatch):
    model = pronounced(DCGAN.Config(latents=4, width=4, critic_width=4, scales=1), replace(GRAY, classes=0))
    x = model.decode(model.draw_latents(5, Sampling(), torch.Generator().manual_seed(3)))
    monkeypatch.setattr("ancestral.evaluation.projection._ROWS", 4)
    found = project(model, x, steps=16, starts=2)
    assert found.images.shape == x.shape
    assert found.labels is None
    assert found.way.shape == (5, 8, 1, 8, 8)
    steps = found.way.float().flatten(2).diff(dim=1).abs().sum(2)
    assert (steps > 0).float().mean() > 0.5, "pictures of the whole way"


@pytest.mark.parametrize("network", [ImageNet, Inception])
def test_networks_of_features_pass_gradients_to_images(network):
    torch.manual_seed(0)
    x, features = torch.rand(1, 3, 32, 32), network()
    for p in features.parameters():
        p.requires_grad_(False)
    given = x.clone().requires_grad_()
    features(given).sum().backward()
    assert given.grad.abs().sum() > 0
    assert not features(x).requires_grad
