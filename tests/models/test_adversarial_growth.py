"""Growing, styled and attending models: what the contract does not ask of them."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import leaky_relu

import ancestral
from ancestral.batch import Batch
from ancestral.errors import UserError
from ancestral.models.adversarial.base import both
from ancestral.models.adversarial.biggan import BigGAN
from ancestral.models.adversarial.progan import ProGAN
from ancestral.models.adversarial.sagan import SAGAN
from ancestral.models.adversarial.stylegan import StyleGAN
from ancestral.models.adversarial.stylegan2 import StyleGAN2
from ancestral.nn.resampling import doubled, halved
from ancestral.nn.self_attention import SelfAttention
from ancestral.recipe import Optimization
from ancestral.sampling import Sampling
from ancestral.spec import Spec
from ancestral.stages import Progress
from ancestral.testing import SPECS, check_model
from ancestral.training import TrainingOptions, loop

GRAY = Spec(shape=(1, 8, 8), levels=17, classes=3)
QUICK = TrainingOptions(
    device="cpu", evaluate_every=0, sample_every=0, checkpoint_every=0, measure_every=0, log_every=1
)
PROGRESS = Progress.at(0, 10)
GROWING = {"progan": ProGAN, "stylegan": StyleGAN}
STYLED = {"stylegan": StyleGAN, "stylegan2": StyleGAN2}
VARIANTS = {
    "biggan-deep": BigGAN.Config(
        latents=4, width=8, critic_width=8, scales=2, attention=1, embedding=3, deep=True
    ),
    "biggan-flat": BigGAN.Config(
        latents=4, width=4, critic_width=4, scales=1, attention=0, embedding=3, hierarchical=False
    ),
    "biggan-unconditional": BigGAN.Config(
        latents=4, width=4, critic_width=4, scales=1, attention=0, hierarchical=False,
        class_conditional=False,
    ),
    "biggan-plain": BigGAN.Config(
        latents=4, width=4, critic_width=4, most=1, scales=1, level=2, attention=0, embedding=0,
        hierarchical=False, orthogonal=0.0,
    ),
    "biggan-hierarchical-plain": BigGAN.Config(
        latents=4, width=4, critic_width=4, scales=1, attention=0, embedding=0
    ),
    "progan-unconditional": replace(ProGAN.Config.tiny(), class_conditional=False, fade=0),
    "stylegan2-lazy": replace(
        StyleGAN2.Config.tiny(), penalty_every=3, path_every=2, class_conditional=False, mixing=0.0,
        residual=False,
    ),
}  # fmt: skip


def batch(n=6, spec=GRAY, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(spec.levels, (n, *spec.shape), generator=generator).to(spec.dtype)
    return Batch(x, labels=torch.arange(n) % spec.classes)


ATTENTIVE = {
    "sagan": SAGAN.Config(latents=4, width=8, critic_width=8, scales=2, attention=1),
    "biggan": BigGAN.Config(latents=6, width=8, critic_width=8, scales=2, attention=1, embedding=3),
    "biggan-deep": VARIANTS["biggan-deep"],
}


@pytest.mark.parametrize("name", ATTENTIVE)
def test_maps_at_half_the_sides_of_the_image_see_all_of_themselves(name):
    config = ATTENTIVE[name]
    model = config.build(GRAY)
    for network in (model.generator, model.critic):
        (attention,) = (m for m in network.modules() if isinstance(m, SelfAttention))
        sides = []
        attention.register_forward_hook(lambda _, given, output, to=sides: to.append(output.shape[2:]))
        model.loss(batch(), "generator", PROGRESS)
        assert {*sides} == {(4, 4)}
    with pytest.raises(UserError, match=r"within 2 scales, got 2 doublings; choose --model\.attention 1"):
        replace(config, attention=2).build(GRAY)


@pytest.mark.parametrize("name", VARIANTS)
def test_configurations_keep_the_contract(name):
    config = VARIANTS[name]
    small = Spec(shape=(1, 4, 4), levels=2, classes=2) if name == "biggan-deep" else SPECS[1]
    check_model(config.model, [small], config)


@pytest.mark.parametrize("name", GROWING)
def test_a_level_begins_as_the_former_one_enlarged_and_ends_as_its_own(name):
    torch.manual_seed(0)
    model = GROWING[name].Config.tiny().build(GRAY).eval()
    assert model.levels == 3
    z, labels = torch.randn(3, 4), torch.tensor([0, 1, 2])
    for level in (1, 2):
        generator, critic = model.generator, model.critic
        with torch.no_grad():
            former = generator(z, labels, level - 1, torch.tensor(1.0))
            x = torch.randn(3, 1, 2 << level, 2 << level)
            start, half, end = (generator(z, labels, level, torch.tensor(a)) for a in (0.0, 0.5, 1.0))
            values = [critic(x, labels, level, torch.tensor(a)) for a in (0.0, 0.5, 1.0)]
            torch.testing.assert_close(start, doubled(former))
            torch.testing.assert_close(half, 0.5 * (start + end))
            torch.testing.assert_close(values[0], critic(halved(x), labels, level - 1, torch.tensor(1.0)))
            assert not torch.allclose(start, end, atol=1e-3)
            # At 1 the former level's own colors have no say.
            for colors in (generator.colors[level - 1], critic.colors[level - 1]):
                colors.weight.add_(1.0)
            torch.testing.assert_close(generator(z, labels, level, torch.tensor(1.0)), end)
            torch.testing.assert_close(critic(x, labels, level, torch.tensor(1.0)), values[2])


@pytest.mark.parametrize("name", GROWING)
def test_images_of_a_level_are_means_and_fade_as_generated_ones_do(name):
    model = GROWING[name].Config.tiny().build(GRAY)
    data = batch()
    progress = Progress.at(2, 8)  # of 4 steps that fade
    for level, stage in enumerate(model.stages()):
        assert stage.name == f"level{level + 1}"
        shrunk = stage.transform(data, progress)
        side = 2 << level
        wanted = data.x.float().unflatten(3, (side, -1)).unflatten(2, (side, -1)).mean((3, 5))
        assert shrunk.x.dtype == data.x.dtype
        assert (shrunk.x.float() - wanted).abs().max() <= 1.0  # each halving rounds but the last alone
        model.train()
        model.loss(shrunk, "critic", progress)
        assert (int(model.growth.level), float(model.growth.alpha)) == (level, 0.5 if level else 1.0)
        with model.grown(level, torch.tensor(0.5)):
            real, plain = model.real(shrunk.x), super(type(model).__mro__[1], model).real(shrunk.x)
        wanted = 0.5 * (plain + doubled(halved(plain))) if level else plain
        torch.testing.assert_close(real, wanted)


@pytest.mark.parametrize("name", GROWING)
def test_samples_are_of_the_level_that_is_trained_and_as_large_as_the_data(name):
    torch.manual_seed(0)
    model = GROWING[name].Config.tiny().build(replace(GRAY, levels=None)).eval()
    labels = torch.tensor([0, 1, 2])
    assert int(model.growth.level) == 0, "nothing is trained"
    small = model.sample(3, labels)
    assert small.shape == (3, 1, 8, 8)
    assert torch.equal(small, doubled(doubled(halved(halved(small))))), "2x2 images, enlarged"
    model.growth.level.fill_(2)
    large = model.sample(3, labels)
    assert not torch.equal(large, doubled(halved(large)))


@pytest.mark.parametrize("name", GROWING)
def test_a_training_that_is_cut_in_the_middle_of_a_fade_ends_the_same(tmp_path, name):
    updates = both(learning_rate=1e-3, betas=(0.0, 0.99))
    one = Optimization(steps=4, batch_size=16, ema=0.5, phases=updates)
    stages = {f"level{i}": one for i in (1, 2, 3)}
    how = {
        "config": GROWING[name].Config.tiny(), "stages": stages,
        "options": replace(QUICK, checkpoint_every=1, keep=20),
    }  # fmt: skip
    for run in ("whole", "cut"):
        ancestral.train(name, data="digits", out=tmp_path / run, **how)
    places = sorted((tmp_path / "cut" / "checkpoints").glob("*/step-*"))
    assert len(places) == 12
    for path in places:
        if path.parent.name == "level3" or (path.parent.name == "level2" and int(path.name[5:]) > 1):
            shutil.rmtree(path)
    shutil.rmtree(tmp_path / "cut" / "model")
    ancestral.train(name, data="digits", out=tmp_path / "cut", **how)
    whole, cut = (ancestral.load(tmp_path / run).state_dict() for run in ("whole", "cut"))
    assert all(torch.equal(whole[key], cut[key]) for key in whole)
    assert int(whole["growth.level"]) == 2
    if name == "stylegan":
        assert whole["generator.mapping.mean"].abs().sum() > 0, "styles are mixed and followed"


def test_averages_are_quick_at_the_start_of_each_level(tmp_path, monkeypatch):
    """Else the first weights of new layers would stay in them for the length of the average."""
    began, start = [], loop.Average.__init__
    monkeypatch.setattr(loop.Average, "__init__", lambda *given: (began.append(given[-1]), start(*given))[1])
    updates = both(learning_rate=1e-3, betas=(0.0, 0.99))
    stages = {f"level{i}": Optimization(steps=2, batch_size=16, ema=0.5, phases=updates) for i in (1, 2, 3)}
    config = ProGAN.Config.tiny()
    ancestral.train("progan", data="digits", out=tmp_path, config=config, stages=stages, options=QUICK)
    assert began == [0, 0, 0]


def weigh_noise(model, weight):
    """Give all noise of layers a weight."""
    found = [p for name, p in model.named_parameters() if name.endswith((".noise", ".noise.weight"))]
    assert found
    for parameter in found:
        torch.nn.init.constant_(parameter, weight)


@pytest.mark.parametrize("name", STYLED)
def test_truncation_to_the_mean_gives_one_picture(name):
    torch.manual_seed(0)
    spec = replace(GRAY, levels=None, classes=0)
    model = replace(STYLED[name].Config.tiny(), truncated=20).build(spec).eval()
    if name == "stylegan":
        model.growth.level.fill_(2)
    weigh_noise(model, 0.0)
    one = model.sample(4, truncation=0.0)
    torch.testing.assert_close(one, one[:1].expand(4, -1, -1, -1))
    assert not torch.allclose(model.sample(4, truncation=1.0), one)
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    whole = [model.sample(2, generator=g, truncation=t) for g, t in zip(generators, (None, 1.0), strict=True)]
    torch.testing.assert_close(*whole)
    with pytest.raises(UserError, match=r"expected truncation in \[0, 1\], got 1.5"):
        model.sample(1, truncation=1.5)


@pytest.mark.parametrize("name", STYLED)
def test_evaluation_moves_no_mean_of_styles(name):
    torch.manual_seed(0)
    model = STYLED[name].Config.tiny().build(GRAY)
    data = model.stages()[-1].transform(batch(), Progress.at(0, 4)) if name == "stylegan" else batch()
    mean = model.generator.mapping.mean
    model.eval()
    model.sample(3, torch.tensor([0, 1, 2]))
    model.loss(data, "generator", Progress.at(0, 4))
    assert torch.equal(mean, torch.zeros_like(mean))
    model.train()
    model.loss(data, "generator", Progress.at(0, 4))
    assert not torch.equal(mean, torch.zeros_like(mean))


def test_noise_of_samples_is_their_own_and_that_of_decoding_is_fixed():
    torch.manual_seed(0)
    for cls in STYLED.values():
        model = cls.Config.tiny().build(replace(GRAY, levels=None, classes=0)).eval()
        weigh_noise(model, 1.0)
        z = model.draw_latents(1, Sampling(), torch.Generator().manual_seed(1)).expand(2, -1)
        first, second = model.decode(z)
        torch.testing.assert_close(first, second)
        same = model.sample(2, generator=torch.Generator().manual_seed(1))
        assert torch.equal(same, model.sample(2, generator=torch.Generator().manual_seed(1)))


def test_truncated_latents_are_those_inside():
    torch.manual_seed(0)
    model = BigGAN.Config.tiny().build(GRAY)
    plain = model.draw_latents(20_000, Sampling())
    z = model.draw_latents(20_000, Sampling(truncation=0.5))
    assert z.abs().max() <= 0.5
    inside = plain[plain.abs() < 0.5]
    assert z.std().item() == pytest.approx(inside.std().item(), rel=0.02)
    assert torch.equal(model.draw_latents(3, Sampling(truncation=0.0)), torch.zeros(3, 4))


def test_every_scale_has_a_part_of_the_latents():
    torch.manual_seed(0)
    model = BigGAN.Config(latents=6, width=4, critic_width=4, scales=2, attention=0, embedding=3).build(GRAY)
    for _ in range(2):
        for phase in model.stages()[0].phases:
            model.loss(batch(), phase.name, Progress.at(0, 4)).total.backward()
    model.eval()
    z, labels = torch.randn(2, 6), torch.tensor([0, 1])
    for part in range(3):
        other = z.clone()
        other[:, 2 * part : 2 * part + 2] += 1
        assert not torch.allclose(model.decode(z, labels).float(), model.decode(other, labels).float())


def test_sizes_that_cannot_be_are_said_in_one_line():
    with pytest.raises(
        UserError, match=r"doubled some times, got 28x28; try --model.base 7 or 14, or resize"
    ):
        ProGAN.Config(base=4).build(Spec(shape=(1, 28, 28)))
    with pytest.raises(
        UserError, match=r"doubled some times, got 31x31; resize the images: --images.size 32 32"
    ):
        ProGAN.Config().build(Spec(shape=(1, 31, 31)))
    with pytest.raises(UserError, match="expected normal latents, got uniform"):
        StyleGAN.Config(noise="uniform").build(Spec(shape=(1, 32, 32)))
    with pytest.raises(UserError, match="expected latents that 6 parts divide, got 100; try 102"):
        BigGAN.Config(latents=100).build(Spec(shape=(3, 64, 64), classes=2))
    with pytest.raises(UserError, match=r"resize the images to"):
        SAGAN.Config().build(Spec(shape=(3, 28, 28)))
    with pytest.raises(UserError, match="use gan for other data"):
        StyleGAN.Config().build(Spec(shape=(2,), levels=None))


def test_the_smallest_map_is_of_4_or_more_and_training_begins_where_it_should():
    """StyleGAN's constant is of 4x4, though its first images are of 8x8; at 1024x1024 it has 18 layers."""
    with torch.device("meta"):
        model = StyleGAN.Config().build(Spec(shape=(3, 1024, 1024)))
    assert model.grid == (4, 4)
    assert len(model.generator.rows) == 18
    assert [stage.name for stage in model.stages()] == [f"level{i}" for i in range(1, 9)]
    first = model.stages()[0].transform(Batch(torch.zeros(1, 3, 1024, 1024, dtype=torch.uint8)), PROGRESS)
    assert first.x.shape == (1, 3, 8, 8)
    small = StyleGAN.Config(latents=4, styles=4, channels=64).build(Spec(shape=(1, 28, 28)))
    assert (small.grid, small.first, len(small.stages())) == ((7, 7), 1, 2)


PARAMETERS = {
    # Karras et al., 2018, table 1 (26.2M with the mapping) and the authors' log of the critic.
    "stylegan": (StyleGAN.Config(), 26.2e6, 23.1e6),
    # Karras et al., 2019, table 1: configuration F.
    "stylegan2": (StyleGAN2.Config(), 30.4e6, 29.0e6),
    # Karras et al., 2017, table 2: 23.1M each.
    "progan": (ProGAN.Config(), 23.1e6, 23.1e6),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_networks_are_as_large_as_the_paper_s(name):
    config, generator, critic = PARAMETERS[name]
    with torch.device("meta"):
        model = config.build(Spec(shape=(3, 1024, 1024)))
    sizes = [sum(p.numel() for p in part.parameters()) for part in (model.generator, model.critic)]
    assert sizes == pytest.approx([generator, critic], rel=5e-3)


def test_biggan_s_are_as_large_as_the_authors_(monkeypatch):
    """As the authors' code counts them; 158.3 million in all (Brock et al., 2018, table 1)."""
    monkeypatch.setattr(torch.nn.init, "orthogonal_", lambda weight: weight)  # takes its time
    sizes = {}
    for name in ("imagenet128", "imagenet128-deep"):
        model = BigGAN.recipes[name].model.build(Spec(shape=(3, 128, 128), classes=1000))
        sizes[name] = [sum(p.numel() for p in part.parameters()) for part in (model.generator, model.critic)]
    assert sizes["imagenet128"] == [70_433_988, 87_982_370]
    assert sizes["imagenet128-deep"] == pytest.approx([50.4e6, 34.6e6], rel=5e-3)
    small = BigGAN.recipes["cifar10"].model.build(Spec(shape=(3, 32, 32), classes=10))
    assert small.critic.blocks(torch.zeros(1, 3, 32, 32)).shape == (1, 256, 8, 8)
    assert small.generator.map(small.generator.first(torch.zeros(1, 128))).shape == (1, 256, 4, 4)


def test_statistics_are_those_of_the_averaged_weights_in_the_end(tmp_path):
    """Standing statistics: of the saved model, and of its averages."""
    updates = both(learning_rate=1e-2, betas=(0.0, 0.99))
    few = Optimization(steps=3, batch_size=16, ema=0.9, phases=updates)
    config = replace(BigGAN.Config.tiny(), standing=4)
    found = {}
    for standing in (0, 4):
        out = tmp_path / str(standing)
        how = {"config": replace(config, standing=standing), "stages": {"training": few}, "options": QUICK}
        ancestral.train("biggan", data="digits", out=out, **how)
        found[standing] = ancestral.load(out).state_dict()
    means = [n for n in found[0] if n.endswith("running_mean")]
    assert means
    assert all(not torch.equal(found[0][n], found[4][n]) for n in means)
    same = [n for n, _ in ancestral.load(tmp_path / "4").named_parameters()]
    assert all(torch.equal(found[0][n], found[4][n]) for n in same)
    model = ancestral.load(tmp_path / "4").eval()
    torch.manual_seed(0)
    norm, seen = model.generator.norm, []
    norm.register_forward_hook(lambda _, given, output: seen.append(given[0].detach()))
    for _ in range(50):
        model.generate(model._latents(64), torch.randint(10, (64,)))
    mean = torch.cat(seen).mean((0, 2, 3))
    torch.testing.assert_close(norm.running_mean, mean, atol=0.1 * float(mean.abs().max()), rtol=0.1)


def test_layers_follow_the_styles_of_another():
    torch.manual_seed(0)
    model = StyleGAN2.Config.tiny().build(replace(GRAY, classes=0)).eval()
    v, other = (model.vectors(torch.randn(n, 4)) for n in (3, 1))
    layers = v.shape[1]
    assert torch.equal(model.mix(v, other, range(layers)), other.expand(3, -1, -1))
    w = model.mix(v, other, range(2))
    assert torch.equal(w[:, :2], other[:, :2].expand(3, -1, -1))
    assert torch.equal(w[:, 2:], v[:, 2:])
    with torch.no_grad():
        assert not torch.equal(model.render(w), model.render(v))
    assert torch.equal(model.mix(v, other, []), v)
    with pytest.raises(UserError, match=rf"expected layers from 0 to {layers - 1} to mix, got {layers}"):
        model.mix(v, other, range(1, layers + 1))
    for wrong in ((v, other[:, :1]), (v[0, 0], other[0, 0])):
        with pytest.raises(UserError, match="give what vectors gives"):
            model.mix(*wrong, [0])


@pytest.mark.parametrize("name", STYLED)
def test_vectors_and_images_of_them_are_asked_for_in_one_line(name):
    torch.manual_seed(0)
    model = STYLED[name].Config.tiny().build(GRAY).eval()
    z = torch.randn(2, 4)
    v = model.vectors(z, torch.tensor([0, 2]))
    torch.testing.assert_close(model.vectors(z, torch.eye(3)[[0, 2]]), v)
    with pytest.raises(UserError, match="expected the classes of the latents, got none"):
        model.vectors(z)
    with pytest.raises(UserError, match=r"expected latents \(N, 4\), got \(2, 3\)"):
        model.vectors(z[:, :3], torch.tensor([0, 2]))
    with pytest.raises(UserError, match=rf"expected vectors \(N, {v.shape[1]}, 5\), got \(2, 1, 5\)"):
        model.render(v[:, :1])
    with pytest.raises(UserError, match="expected a tensor of classes, got list; wrap them"):
        model.vectors(z, [0, 2])
    with pytest.raises(UserError, match="expected the numbers of layers, got int"):
        model.mix(v, v, 3)
    shown = model.to_examples(model.render(v.double(), torch.tensor([0, 2])))
    assert (shown.dtype, shown.shape) == (torch.uint8, (2, 1, 8, 8))
    assert model.draw_latents(3).shape == (3, 4)


@pytest.mark.parametrize("name", GROWING)
def test_a_fade_is_as_long_whatever_the_parts_of_a_batch(name):
    model = replace(GROWING[name].Config.tiny(), fade=640).build(GRAY).train()
    data = model.stages()[1].transform(batch(), PROGRESS)
    alphas = []
    for part in (data, data[:4]):
        model.loss(part, "critic", Progress.at(20, 1000, batch_size=16))
        alphas.append(float(model.growth.alpha))
    assert alphas == [0.5, 0.5]


def test_tables_of_classes_are_no_matrices_to_be_orthogonal():
    model = VARIANTS["biggan-plain"].build(GRAY)
    tables = [p for n, p in model.generator.named_parameters() if p.dim() == 2 and p.shape[0] == 3]
    assert tables
    chosen = {id(weight) for weight in model._regular()}
    assert not chosen & {id(table) for table in tables}
    assert len(chosen) > 3


def test_gains_are_the_authors():
    """1 where nothing is rectified after: colors, styles and the last layer; a quarter in the first one."""
    progan, stylegan = (cls.Config.tiny().build(GRAY) for cls in (ProGAN, StyleGAN))
    plain = [*progan.generator.colors, *stylegan.generator.colors, progan.critic.output]
    plain += [row.style.style for row in stylegan.generator.rows]
    for layer in plain:
        assert layer.scale == pytest.approx(layer.weight[0].numel() ** -0.5)
    for layer in (*progan.critic.colors, progan.critic.hidden, progan.generator.convolution):
        assert layer.scale == pytest.approx((2 / layer.weight[0].numel()) ** 0.5)
    first = progan.generator.first
    assert first.dense.scale == pytest.approx((2 / 16 / first.dense.weight.shape[1]) ** 0.5)
    assert first.bias.shape[0] == first.dense.weight.shape[0] // 4, "one for each channel"
    assert torch.equal(stylegan.generator.start.map, torch.ones_like(stylegan.generator.start.map))
    wide = replace(StyleGAN2.Config.tiny(), channels=1024, most_channels=512).build(GRAY)
    assert wide.generator.start.map.std().item() == pytest.approx(1.0, abs=0.1)


def test_the_critic_of_stylegan_means_before_it_rectifies():
    torch.manual_seed(0)
    for model, first in ((ProGAN, "rectified"), (StyleGAN, "means")):
        block = model.Config.tiny().build(GRAY).critic.blocks[0]
        seen, h = [], torch.randn(2, block.first.weight.shape[1], 4, 4)
        block.second.register_forward_hook(lambda _, given, output, seen=seen: seen.append(output))
        y = block(h)
        steps = (leaky_relu(seen[0], 0.2), halved) if first == "rectified" else (halved(seen[0]), None)
        torch.testing.assert_close(y, halved(steps[0]) if steps[1] else leaky_relu(steps[0], 0.2))
