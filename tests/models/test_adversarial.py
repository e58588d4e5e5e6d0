"""The adversarial models: what the contract does not ask of them."""

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import softplus
from torch.nn.utils.parametrize import is_parametrized

import ancestral
from ancestral.batch import Batch
from ancestral.capabilities import Styled
from ancestral.errors import UserError
from ancestral.models.adversarial.base import both
from ancestral.models.adversarial.cgan import ConditionalGAN, Convolutional, Dense
from ancestral.models.adversarial.dcgan import DCGAN
from ancestral.models.adversarial.gan import GAN
from ancestral.models.adversarial.improved_gan import ImprovedGAN
from ancestral.models.adversarial.progan import ProGAN
from ancestral.models.adversarial.wgan import WGAN, Residual
from ancestral.models.adversarial.wgan import Convolutional as Strided
from ancestral.recipe import Optimization, Updates
from ancestral.sampling import Sampling
from ancestral.spec import Spec
from ancestral.stages import Progress, initialize
from ancestral.taxonomy import TAXONOMY, model_class
from ancestral.testing import SPECS, check_model
from ancestral.training import TrainingOptions

GRAY = Spec(shape=(1, 8, 8), levels=17, classes=3)
PROGRESS = Progress.at(0, 10)
QUICK = TrainingOptions(
    device="cpu", evaluate_every=0, sample_every=0, checkpoint_every=0, measure_every=0, log_every=1
)
NAMES = [row.name for row in TAXONOMY if row.representation == "adversarial"]


def batch(n=6, spec=GRAY, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(spec.levels, (n, *spec.shape), generator=generator).to(spec.dtype)
    return Batch(x, labels=torch.arange(n) % spec.classes if spec.classes else None)


VARIANTS = {
    "hinge": DCGAN.Config(latents=4, width=4, critic_width=4, scales=1, loss="hinge", critic_norm="spectral"),
    "relativistic": DCGAN.Config(
        latents=4, width=4, critic_width=4, scales=1, loss="relativistic", critic_norm="none",
        penalty="r1-r2", penalty_weight=0.1, penalty_every=4,
    ),
    "refined": DCGAN.Config(
        latents=4, width=4, critic_width=4, scales=1, refined=True, critic_norm="spectral", loss="hinge"
    ),
    "residual": WGAN.Config(
        latents=4, class_conditional=True, dequantize=True,
        architecture=Residual(width=4, scales=1, critic_scales=1, blocks=1),
    ),
    "clipped": WGAN.Config(
        latents=4, penalty="none", clip=0.01,
        architecture=Strided(width=4, critic_width=4, scales=1),
    ),
    "matching": ImprovedGAN.Config(
        latents=4, width=4, critic_width=4, scales=1, critic_scales=1, kernels=0, feature_matching=True,
        real_target=1.0,
    ),
    "adaptive": DCGAN.Config(latents=4, width=4, critic_width=4, scales=1, augmentation="adaptive"),
    "convolutional": ConditionalGAN.Config(latents=4, architecture=Convolutional(width=4, scales=1)),
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_configurations_of_later_papers_keep_the_contract(name):
    config = VARIANTS[name]
    check_model(config.model, SPECS[1:2], config)


@pytest.mark.parametrize("name", ["convolutional", "hinge", "refined", "residual", "dense"])
def test_another_class_changes_the_picture_and_the_critics_value(name):
    torch.manual_seed(0)
    config = VARIANTS.get(name, ConditionalGAN.Config.tiny())
    model = config.build(GRAY)
    stage = model.stages()[0]
    optimizers = [torch.optim.Adam(phase.parameters, 1e-2) for phase in stage.phases]
    for _ in range(3):  # a class's gains are all 1 at first
        for phase, optimizer in zip(stage.phases, optimizers, strict=True):
            model.loss(batch(), phase.name, PROGRESS).total.backward()
            optimizer.step()
            model.zero_grad()
    model.eval()
    z, here, there = torch.randn(3, 4), torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])
    with torch.no_grad():
        assert not torch.allclose(model.generator(z, here), model.generator(z, there), atol=1e-5)
        x = model.real(batch(3).x)
        assert not torch.allclose(model.critic(x, here), model.critic(x, there), atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_the_same_alone_and_among_others(name):
    cls = model_class(name)
    torch.manual_seed(0)
    model = cls.Config.tiny().build(GRAY).eval()
    z = torch.randn(5, 4)
    labels = torch.tensor([0, 1, 2, 0, 1]) if model.sample_classes else None
    with torch.no_grad():
        together = model.generate(z, labels)
        alone = model.generate(z[2:3], None if labels is None else labels[2:3])
    torch.testing.assert_close(alone, together[2:3])


@pytest.mark.parametrize("rate", [0.0001, 0.1])
def test_the_generator_meets_the_critic_as_it_is_now(tmp_path, rate):
    """Its loss is not that of before the critic's update."""
    phases = {"critic": Updates(learning_rate=rate, warmup=0), "generator": Updates(learning_rate=1e-9)}
    run = ancestral.train(
        "gan", data="digits", out=tmp_path / "run", config=GAN.Config.tiny(),
        stages={"training": Optimization(steps=1, batch_size=64, phases=phases)}, options=QUICK,
    )  # fmt: skip
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    loss = next(line["generator_loss"] for line in lines if line["split"] == "train")
    # Weights of .005 give logits of 0, and a loss of log 2; one step of .1 does not.
    assert (abs(loss - math.log(2)) < 0.01) == (rate < 0.01)


def test_weights_are_clipped_before_each_update_of_the_critic():
    model = VARIANTS["clipped"].build(GRAY)
    with torch.no_grad():
        for parameter in model.critic.parameters():
            parameter.fill_(0.5)
    model.loss(batch(), "generator", PROGRESS)
    assert float(max(p.detach().max() for p in model.critic.parameters())) == 0.5
    model.loss(batch(), "critic", PROGRESS)
    for parameter in model.critic.parameters():  # gains of batch normalization too
        assert float(parameter.detach().abs().max()) <= 0.01 + 1e-9


def test_a_lazy_penalty_weighs_as_often_as_it_is_left_out():
    config = VARIANTS["relativistic"]
    torch.manual_seed(0)
    model = config.build(GRAY)
    names = [
        (phase.name, phase.every, phase.optimizer, phase.validated) for phase in model.stages()[0].phases
    ]
    assert names == [
        ("critic", 1, None, True), ("penalty", 4, "critic", False), ("generator", 1, None, True)
    ]  # fmt: skip
    torch.manual_seed(1)
    loss = model.loss(batch(), "penalty", PROGRESS)
    assert loss.total.item() == pytest.approx(0.1 * 4 * loss.terms["mean"].item())
    # As in every update of the critic since the last one.
    several = replace(config, critic_updates=3).build(GRAY).loss(batch(), "penalty", PROGRESS)
    assert several.total.item() == pytest.approx(0.1 * 4 * 3 * several.terms["mean"].item())
    always = replace(config, penalty_every=1, loss="hinge").build(GRAY)
    loss = always.loss(batch(), "critic", PROGRESS)
    torch.manual_seed(1)
    r, f = loss.terms["real"], loss.terms["generated"]
    assert loss.total.item() > 0.1 * loss.terms["penalty"].item()
    assert bool(r.isfinite() & f.isfinite())


@pytest.mark.parametrize("model", [GAN, ConditionalGAN])
def test_dense_generators_begin_around_the_mean_of_real_images(model):
    torch.manual_seed(0)
    model = model.Config.tiny().build(GRAY)
    data = batch(200)
    initialize(model, model.stages()[0], data)
    with torch.no_grad():
        drawn = model.eval().generator(model._latents(501), torch.arange(501) % 3).mean(0)
    torch.testing.assert_close(drawn, model.real(data.x).mean(0), atol=0.02, rtol=0)


def test_improved_gan_learns_a_few_labels_of_each_class():
    torch.manual_seed(0)
    sizes = {"latents": 4, "width": 4, "critic_width": 4, "scales": 1, "critic_scales": 1}
    config = ImprovedGAN.Config(
        **sizes, kernels=0, labeled=6, real_target=1.0, dropout=0.0, input_dropout=0.0
    )
    model = config.build(GRAY)
    stage = model.stages()[0]
    assert stage.initial == 300
    data = batch(24)
    initialize(model, stage, data)
    labels, examples = model.critic.labels, model.critic.examples
    assert labels.bincount().tolist() == [2, 2, 2]
    assert torch.equal(examples, torch.cat([data.x[data.labels == c][:2] for c in range(3)]))
    assert "labels" in model.loss(data, "critic", PROGRESS).terms
    assert model.classifies
    logits = model.class_logits(data.x)
    assert logits.shape == (24, 3)
    torch.testing.assert_close(model.class_logits(data.x[:1]), logits[:1])  # one by one
    # Of K logits: L_lab = -l_y + log Z, L_unl = -lse(x)/2 + softplus(lse(x))/2 + softplus(lse(G))/2.
    torch.manual_seed(1)
    loss = model.loss(data, "critic", PROGRESS)
    torch.manual_seed(1)
    with torch.no_grad():
        fake = model.generate(model._latents(24), None)
        real, made = (model.critic.logits(model.critic.features(x)) for x in (model.real(data.x), fake))
        real, made = real.logsumexp(1), made.logsumexp(1)
        unlabeled = (-0.5 * real + 0.5 * softplus(real)).mean() + 0.5 * softplus(made).mean()
        chosen = torch.randint(6, (24,))
        found = model.class_logits(examples[chosen])
        labeled = (found.logsumexp(1) - found.gather(1, labels[chosen, None])[:, 0]).mean()
    torch.testing.assert_close(loss.total.detach(), unlabeled + labeled)
    with pytest.raises(UserError, match="expected 2 labeled examples of class 0 among 2"):
        initialize(model, stage, data[:2])
    with pytest.raises(UserError, match="expected labels that the 3 classes divide, got 7"):
        ImprovedGAN.Config(labeled=7, **sizes).build(GRAY)
    with pytest.raises(UserError, match="a classifier that takes examples one by one, got 100 kernels"):
        ImprovedGAN.Config(labeled=6, **sizes).build(GRAY)
    with pytest.raises(UserError, match="expected a cross-entropy for labels"):
        ImprovedGAN.Config(loss="hinge", **sizes).build(GRAY)
    assert not ImprovedGAN.Config.tiny().build(GRAY).classifies


def test_improved_gan_s_critic_starts_from_data_and_keeps_its_gains():
    torch.manual_seed(0)
    sizes = {"latents": 4, "width": 4, "critic_width": 4, "scales": 1, "critic_scales": 1}
    model = ImprovedGAN.Config(**sizes, kernels=0, dropout=0.0, input_dropout=0.0).build(GRAY)
    data = batch(64)
    initialize(model, model.stages()[0], data)
    critic, found = model.critic, {}
    layers = {n: m for n, m in critic.named_modules() if is_parametrized(m, "weight")}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda _, given, output, name=name: found.update({name: output}))
    with torch.no_grad():
        critic(model.real(data.x))
    assert len(found) == 7
    for name, output in found.items():
        dims = [0, *range(2, output.dim())]
        wanted = 0.1 if name == "head" else 1.0
        torch.testing.assert_close(output.mean(dims), torch.zeros(output.shape[1]), atol=1e-4, rtol=0)
        spread = output.std(dims, correction=0)
        torch.testing.assert_close(spread, torch.full_like(spread, wanted), rtol=1e-3, atol=0)
    learned = {n for n, p in critic.named_parameters() if "original0" in n and p.requires_grad}
    assert learned == {"head.parametrizations.weight.original0"}


def test_noise_of_the_critic_s_input_is_of_training_alone():
    torch.manual_seed(0)
    model = replace(VARIANTS["matching"], input_noise=0.3, input_dropout=0.0, dropout=0.0).build(GRAY)
    x = model.real(batch().x)
    with torch.no_grad():
        assert not torch.equal(model.critic.train()(x), model.critic(x))
        assert torch.equal(model.critic.eval()(x), model.critic(x))


def test_the_dense_generator_s_dropout_is_its_own():
    dense = Dense(widths=(8, 8, 16), critic=((8, 2), (4, 2), (8, 2)), generator_dropout=0.0)
    model = ConditionalGAN.Config(latents=4, architecture=dense).build(GRAY).train()
    z, labels = torch.randn(3, 4), torch.arange(3)
    with torch.no_grad():
        assert torch.equal(model.generator(z, labels), model.generator(z, labels))
        x = model.real(batch(3).x)
        assert not torch.equal(model.critic(x, labels), model.critic(x, labels))


def test_features_are_matched_by_their_means():
    torch.manual_seed(0)
    config = replace(VARIANTS["matching"], dropout=0.0, input_dropout=0.0)
    model, data = config.build(GRAY), batch()
    torch.manual_seed(1)
    loss = model.loss(data, "generator", PROGRESS).total
    torch.manual_seed(1)
    fake = model.generate(model._latents(6), None)
    means = [model.critic.features(x).mean(0) for x in (model.real(data.x), fake)]
    torch.testing.assert_close(loss, (means[0] - means[1]).square().sum())


@pytest.mark.parametrize("levels", [5, 17, 256])
def test_bins_of_noise_are_decoded_as_they_were_made(levels):
    spec = Spec(shape=(1, 8, 8), levels=levels)
    config = WGAN.Config.tiny()
    for dequantize in (True, False):
        model = replace(config, dequantize=dequantize).build(spec)
        x = batch(50, spec).x
        assert torch.equal(model.to_examples(model.real(x)), x)


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_what_their_latents_decode_to(name):
    torch.manual_seed(0)
    model = model_class(name).Config.tiny().build(GRAY).eval()
    labels = torch.tensor([0, 1, 2], dtype=torch.uint8) if model.sample_classes else None
    how = {"temperature": 0.5} if "temperature" in model.sampling_options else {}
    z = model.draw_latents(3, Sampling(**how), torch.Generator().manual_seed(5))
    drawn = model.sample(3, labels, generator=torch.Generator().manual_seed(5), **how)
    if not isinstance(model, Styled):  # whose samples have noise of their own
        assert torch.equal(drawn, model.decode(z, labels))
    many = model.draw_latents(20_000, Sampling(**how)).mean()
    assert abs(float(many)) < 0.015
    if labels is None:
        with pytest.raises(UserError, match="expected no labels"):
            model.decode(z, torch.tensor([0, 1, 2]))


@pytest.mark.parametrize("name", ["cgan", "convolutional", "hinge", "residual"])
def test_classes_are_mixed_by_their_shares(name):
    torch.manual_seed(0)
    config = VARIANTS[name] if name in VARIANTS else model_class(name).Config.tiny()
    model = config.build(replace(GRAY, levels=None)).eval()
    for name, table in model.generator.named_parameters():
        if table.dim() == 2 and ("gain" in name or "bias" in name):
            torch.nn.init.normal_(table)  # classes are alike at first
    z, labels = torch.randn(3, 4), torch.tensor([0, 1, 2])
    pure = model.decode(z, labels)
    shares = torch.eye(3)
    torch.testing.assert_close(model.decode(z, shares), pure)
    half = model.decode(z, 0.5 * (shares + shares.roll(1, 0)))
    assert not torch.allclose(half, pure, atol=1e-4)
    with pytest.raises(UserError, match=r"expected shares of classes \(3, 3\), got \(2, 3\)"):
        model.decode(z, shares[:2])


def test_trainings_are_resumed_with_both_sides_and_what_adapts(tmp_path):
    """As after a kill: the newest checkpoints are gone."""
    config = replace(VARIANTS["adaptive"], loss="hinge", critic_norm="spectral")
    stages = {"training": Optimization(steps=6, batch_size=16, ema=0.5, phases=both(betas=(0.0, 0.9)))}
    for name in ("whole", "cut"):
        how = {"config": config, "stages": stages, "options": replace(QUICK, checkpoint_every=1, keep=9)}
        ancestral.train("dcgan", data="digits", out=tmp_path / name, **how)
    for path in (tmp_path / "cut" / "checkpoints").glob("*/step-*"):
        if int(path.name[5:]) > 2:
            shutil.rmtree(path)
    ancestral.train("dcgan", data="digits", out=tmp_path / "cut", **how)
    whole, cut = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert whole == cut
    assert "augmentation.p" in load_file(tmp_path / "whole" / "model" / "model.safetensors")


class Constant(GAN):
    """Latents that do not depend on how many are asked for at a time."""

    def _latents(self, n, generator=None):
        return torch.ones(n, self.config.latents, dtype=self.dtype)


@pytest.mark.parametrize("game", ["non-saturating", "hinge", "relativistic"])
def test_parts_of_a_batch_are_as_good_as_the_whole(tmp_path, game):
    """Where nothing looks at examples together: the same weights on both sides, penalty and all."""
    config = replace(
        GAN.Config.tiny(), input_dropout=0.0, dropout=0.0, loss=game, penalty="r1-r2", penalty_every=2
    )
    updates = both(optimizer="sgd", learning_rate=0.1, schedule="constant")
    found = []
    for parts in (1, 4):
        stages = {"training": Optimization(steps=5, batch_size=32, accumulate=parts, phases=updates)}
        options = replace(QUICK, precision="64-true")
        out = tmp_path / str(parts)
        ancestral.train(Constant, data="digits", out=out, config=config, stages=stages, options=options)
        found.append(load_file(out / "model" / "model.safetensors"))
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [*NAMES, *VARIANTS])
def test_losses_in_bfloat16_are_those_in_float32_but_for_rounding(name):
    torch.manual_seed(0)
    config = VARIANTS[name] if name in VARIANTS else model_class(name).Config.tiny()
    model = config.build(GRAY)
    for phase in model.stages()[0].phases:
        losses = []
        for low in (False, True):
            torch.manual_seed(1)
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                loss = model.loss(batch(), phase.name, PROGRESS).total
            assert loss.dtype == torch.float32
            loss.backward()
            losses.append(loss.item())
        assert losses[1] == pytest.approx(losses[0], rel=0.1, abs=0.05)
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_what_cannot_be_is_said_in_one_line():
    odd, single = Spec(shape=(1, 30, 30), classes=3), Spec(shape=(1, 8, 8), classes=1)
    for config in (DCGAN.Config(scales=2), WGAN.Config(), ImprovedGAN.Config(scales=2)):
        with pytest.raises(UserError, match="resize the images to 32x32"):
            config.build(odd)
    with pytest.raises(UserError, match="expected data of at least 2 classes for ConditionalGAN, got 1"):
        ConditionalGAN.Config().build(single)
    with pytest.raises(UserError, match=r"expected images \(C, H, W\), got shape \(2,\); use gan"):
        DCGAN.Config().build(Spec(shape=(2,), levels=None))
    tiny = DCGAN.Config.tiny()
    mixing = (replace(tiny, scales=2, penalty="r1"), WGAN.Config(latents=4, architecture=Strided(scales=2)),
              replace(ImprovedGAN.Config.tiny(), penalty="r1"))  # fmt: skip
    for config in mixing:
        with pytest.raises(UserError, match="a critic that takes examples one by one for a penalty, got"):
            config.build(GRAY)
    with pytest.raises(UserError, match="expected a critic of logits to adapt to, got the loss relativistic"):
        replace(VARIANTS["adaptive"], loss="relativistic").build(GRAY)
    with pytest.raises(UserError, match="expected a critic that is clipped or penalized"):
        replace(WGAN.Config.tiny(), clip=0.1).build(GRAY)
    with pytest.raises(UserError, match="to augment, got shape"):
        GAN.Config(augmentation="fixed").build(Spec(shape=(2,), levels=None))
    model = DCGAN.Config.tiny().build(GRAY).eval()
    with pytest.raises(UserError, match="expected a model with a likelihood, got DCGAN"):
        model.log_likelihood(batch())
    with pytest.raises(UserError, match="expected the classes of the latents"):
        model.decode(torch.zeros(2, 4))
    with pytest.raises(UserError, match=r"expected latents \(N, 4\), got \(2, 3\)"):
        model.decode(torch.zeros(2, 3), torch.tensor([0, 1]))


def test_two_moons_of_real_numbers_are_no_images():
    model = GAN.Config.tiny().build(Spec(shape=(2,), levels=None)).eval()
    x = model.sample(5)
    assert (x.shape, x.dtype) == (torch.Size([5, 2]), torch.float32)


def test_recipes_say_how_both_sides_are_updated():
    recipes = [r for name in NAMES for r in model_class(name).recipes.values()]
    for phases in (stage.phases for recipe in recipes for stage in recipe.stages.values()):
        assert {*phases} == {"critic", "generator"}
        # A clipped gradient would be another game.
        assert all(updates.gradient_clip is None for updates in phases.values())


def test_drift_is_weighed_in_the_critic_s_loss():
    losses, values = [], None
    for weight in (0.0, 0.5):
        torch.manual_seed(0)
        model = replace(GAN.Config.tiny(), drift=weight, dropout=0.0, input_dropout=0.0).build(GRAY)
        with torch.no_grad():
            model.critic.layers[-1].bias.fill_(3.0)
            values = model.critic(model.real(batch().x))
        torch.manual_seed(1)
        losses.append(model.loss(batch(), "critic", PROGRESS).total.detach())
    torch.testing.assert_close(losses[1] - losses[0], 0.5 * values.square().mean())


def test_signs_of_trouble_are_said_with_what_helps():
    model = GAN.Config.tiny().build(GRAY)
    (stage,) = model.stages()
    assert stage.watch({"critic_accuracy": 0.7, "diversity": 0.9}, 0.5) == []
    assert stage.watch({"critic_accuracy": 1.0, "diversity": 0.1}, 0.1) == []  # every game begins so
    (saturated,) = stage.watch({"critic_accuracy": 0.99}, 0.5)
    (collapsed,) = stage.watch({"diversity": 0.3}, 0.5)
    assert "the critic takes nearly all examples for what they are" in saturated
    assert "vary less than half as much as real examples" in collapsed
    assert all(sign.endswith("--model.penalty r1") for sign in (saturated, collapsed))
    (penalized,) = replace(GAN.Config.tiny(), penalty="r1").build(GRAY).stages()
    assert "--model.penalty" not in str(penalized.watch({"critic_accuracy": 0.99, "diversity": 0.3}, 0.5))


def test_small_images_of_a_growing_model_are_not_said_to_vary_too_little():
    *early, last = ProGAN.Config.tiny().build(GRAY).stages()
    assert [stage.watch for stage in early] == [None] * len(early)
    assert last.watch({"diversity": 0.3}, 0.5)
