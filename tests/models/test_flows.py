"""The flows: what their papers say of them, and the traps of public code."""

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import ancestral
from ancestral.batch import Batch
from ancestral.bijections import BatchNormalization, Coupling, Invertible1x1, Reversible
from ancestral.errors import UserError
from ancestral.models.flow.base import Flow
from ancestral.models.flow.dequantizers import VariationalNoise
from ancestral.models.flow.flowpp import FlowPP
from ancestral.models.flow.glow import CouplingNetwork, Glow, NormalizedMix
from ancestral.models.flow.iaf import IAF
from ancestral.models.flow.maf import MAF
from ancestral.models.flow.nice import NICE
from ancestral.models.flow.realnvp import RealNVP
from ancestral.recipe import Optimization
from ancestral.spec import Spec
from ancestral.testing import check_bijection, check_model, enumerate_examples
from ancestral.training import TrainingOptions

IMAGE = Spec(shape=(1, 8, 8), levels=17)
ROWS = Spec(shape=(4,), levels=None)
GLOW = replace(Glow.Config.tiny(), levels=2, depth=2)
FLOWS = {
    "nice": (NICE.Config.tiny(), IMAGE),
    "realnvp": (replace(RealNVP.Config.tiny(), scales=3), IMAGE),
    "maf": (MAF.Config.tiny(), IMAGE),
    "glow": (GLOW, IMAGE),
    "glow, additive": (replace(GLOW, coupling="additive", lu=False), IMAGE),
    "glow of colors": (GLOW, Spec(shape=(3, 8, 12), levels=256)),
    "flowpp": (replace(FlowPP.Config.tiny(), fine=6, coarse=4), IMAGE),
    "nice of rows": (NICE.Config.tiny(), ROWS),
    "realnvp of rows": (RealNVP.Config.tiny(), ROWS),
    "maf of rows": (MAF.Config.tiny(), ROWS),
    "maf with a mixture": (replace(MAF.Config.tiny(), components=3), ROWS),
    "maf, inverse": (replace(MAF.Config.tiny(), inverse=True, batch_norm=False), ROWS),
}


def examples(spec: Spec, n: int) -> Tensor:
    return (
        torch.randn(n, *spec.shape) if spec.levels is None else torch.randint(spec.levels, (n, *spec.shape))
    )


def trained(name: str, classes: int = 0) -> Flow:
    """A flow that started from data, and whose weights have moved since."""
    torch.manual_seed(0)
    config, spec = FLOWS[name]
    model = config.build(replace(spec, classes=classes)).train()
    batch = Batch(examples(spec, 16), torch.arange(16) % classes if classes else None)
    with torch.no_grad():
        for _ in range(20):  # running statistics of batch normalization
            model.log_likelihood(batch)
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_is_a_bijection_with_its_volume(name):
    model = trained(name)
    y = examples(model.spec, 2).float() + (0.5 if model.spec.levels else 0)
    check_bijection(model.flow, y)


@pytest.mark.parametrize("name", FLOWS)
def test_nothing_is_lost_between_an_example_and_its_latents(name):
    model = trained(name)
    x = examples(model.spec, 5)
    z = model.embed(x)
    assert z.shape == (5, model.spec.dims)
    if model.spec.levels is None:
        torch.testing.assert_close(model.decode(z), x, atol=1e-4, rtol=1e-4)
    else:
        assert torch.equal(model.decode(z).long(), x)


@pytest.mark.parametrize("name", ["nice", "realnvp", "maf", "glow", "flowpp"])
@torch.no_grad()
def test_classes_condition_a_flow_and_their_mixture_is_the_unlabeled_figure(name):
    model = trained(name, classes=3)
    if model.dequantization is not None:  # the same noise each time
        model.dequantization = Still()
    x = examples(model.spec, 4)
    by_class = torch.stack([model.log_likelihood(Batch(x, torch.full((4,), c))) for c in range(3)])
    assert float(by_class.std(0).min()) > 0
    torch.testing.assert_close(model.log_likelihood(Batch(x)), by_class.logsumexp(0) - math.log(3))
    labels = torch.tensor([0, 1, 2, 0])
    z = model.embed(x, labels)
    assert torch.equal(model.decode(z, labels).long(), x)
    assert not torch.equal(z[1], model.embed(x, torch.zeros(4, dtype=torch.int64))[1])
    with pytest.raises(UserError, match="expected labels for a class-conditional"):
        model.embed(x)


class Still(torch.nn.Module):
    """Noise of .5."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return torch.full_like(x, 0.5), x.new_zeros(len(x))


@pytest.mark.parametrize("name", FLOWS)
def test_an_example_is_as_likely_alone_as_among_others(name):
    model = trained(name)
    if model.dequantization is not None:
        model.dequantization = Still()
    x = examples(model.spec, 6)
    alone = torch.cat([model.log_likelihood(Batch(row[None])) for row in x])
    torch.testing.assert_close(model.log_likelihood(Batch(x)), alone, rtol=1e-4, atol=1e-3)


def test_more_noise_tightens_the_bound_towards_the_truth():
    # A tiny alphabet: the truth of each integer is the integral over its unit box, here by a grid.
    torch.manual_seed(0)
    spec = Spec(shape=(1, 2, 2), levels=2)
    noise = VariationalNoise(couplings=2, width=4, blocks=0, components=2)
    config = replace(Glow.Config.tiny(), depth=3, dequantization=noise)
    model = config.build(spec).train()
    x = enumerate_examples(spec)
    with torch.no_grad():
        model.log_likelihood(Batch(x))
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        model.eval()
        places = (torch.arange(12) + 0.5) / 12
        grid = torch.cartesian_prod(*[places] * 4).view(-1, 1, 2, 2)
        truth = torch.stack([model.log_density(row + grid, None).exp().mean().log() for row in x.float()])
        draws = 4000
        weights = model.log_likelihood(Batch(x.repeat(draws, 1, 1, 1))).view(draws, -1).exp()  # k = 1 each
        torch.manual_seed(1)
        several = model.log_likelihood(Batch(x.repeat(100, 1, 1, 1)), k=10).view(100, -1).mean(0)
    error = weights.std(0) / math.sqrt(draws)
    assert bool(((weights.mean(0) - truth.exp()).abs() < 5 * error).all())
    one = weights.log().mean(0)
    assert bool((one < several).all() & (several < truth + 5 * error / truth.exp()).all())
    assert float((truth - one).mean()) > 2 * float((truth - several).mean()) > 0.02
    assert float(truth.exp().sum()) < 1.0


@pytest.mark.parametrize("name", ["nice of rows", "realnvp of rows"])
def test_every_column_of_an_odd_number_depends_on_others(name):
    config, _ = FLOWS[name]
    torch.manual_seed(0)
    model = config.build(Spec(shape=(5,), levels=None))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    model.eval()
    x = torch.randn(40, 5)
    seen = torch.stack(
        [torch.autograd.functional.jacobian(lambda r: model.flow(r[None])[0][0], row) != 0 for row in x]
    ).any(0)
    assert bool((seen.sum(1) > 1).all())


def test_what_lies_beyond_all_floats_is_infinitely_unlikely():
    model = trained("maf of rows")
    x = torch.tensor([[0.1, 0.2, 0.3, 0.4], [1e30, -1e30, 1e30, 1e30]])
    with torch.no_grad():
        near, far = model.log_likelihood(Batch(x)).tolist()
        assert math.isfinite(near)
        assert far == -math.inf
        # A log-scale that grows with the value before makes samples that no float holds.
        for parameter in model.parameters():
            parameter.mul_(30)
    with pytest.raises(UserError, match="lower the temperature"):
        model.sample(100, temperature=50.0)


def test_a_singular_matrix_is_named():
    model = trained("glow, additive")
    with torch.no_grad():
        name, mixing = next((n, m) for n, m in model.named_modules() if isinstance(m, Invertible1x1))
        mixing.weight[0] = mixing.weight[1]
    with pytest.raises(UserError, match=rf"expected invertible matrices, got a singular one in {name}; "):
        model.sample(2)


@pytest.mark.parametrize("name", ["glow", "flowpp", "realnvp"])
def test_autocast_rounds_networks_and_not_what_is_inverted(name):
    model = trained(name)
    x = examples(model.spec, 3)
    y = x.float() + 0.5
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        z, log_det = model.flow(y)
        back, _ = model.flow.inverse(z)
    assert z.dtype == log_det.dtype == torch.float32
    torch.testing.assert_close(back, y, atol=0.02, rtol=0)
    with torch.no_grad():
        exact = model.flow(y)[1]
    torch.testing.assert_close(log_det, exact, atol=2.0, rtol=0.01)


def test_too_many_levels_are_refused():
    with pytest.raises(UserError, match="at most 65,536 levels"):
        NICE.Config.tiny().build(Spec(shape=(4,), levels=2**20, domain="table"))


def test_only_the_last_scale_of_nice_changes_the_volume():
    model = trained("nice of rows")
    _, log_det = model.flow(torch.randn(5, 4))
    scale = model.flow.steps[-1]
    torch.testing.assert_close(log_det, scale.log_scale.sum().expand(5))


def test_nice_halves_are_the_even_and_the_odd_values():
    torch.manual_seed(0)
    model = NICE(replace(NICE.Config.tiny(), couplings=1, width=64), Spec(shape=(6,), levels=None))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x = torch.randn(1, 6)
    jacobian = torch.autograd.functional.jacobian(lambda row: model.flow(row[None])[0][0], x[0]).abs() > 0
    assert jacobian[:3, 1::2].sum() == 0  # even values stay
    assert bool(jacobian[3:, 0::2].all())  # odd ones know all even ones


def test_glow_starts_as_its_code_does():
    # z2 = (z2 + 0) sigmoid(0 + 2): .88; means 0 and variances 1 after each activation norm.
    torch.manual_seed(0)
    model = Glow(GLOW, Spec(shape=(1, 28, 28))).train()
    mix = next(m for m in model.modules() if isinstance(m, NormalizedMix))
    network = next(m for m in model.modules() if isinstance(m, CouplingNetwork))
    seen: dict[str, Tensor] = {}
    mix.register_forward_hook(lambda module, given, output: seen.update(mixed=output[0]))
    network.last.register_forward_pre_hook(lambda module, given: seen.update(rectified=given[0]))
    batch = Batch(torch.randint(256, (64, 1, 28, 28)))
    with torch.no_grad():
        model.log_likelihood(batch)
    normalized = mix.mixing.inverse(seen["mixed"])[0]
    torch.testing.assert_close(normalized.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalized.std((0, 2, 3)), torch.ones(4), atol=1e-2, rtol=0)
    # Of a normal variable: mean 1 / sqrt(2 pi).
    torch.testing.assert_close(seen["rectified"].mean(), torch.tensor(0.3989), atol=0.03, rtol=0)
    coupling = next(m for m in model.modules() if isinstance(m, Coupling))
    x = torch.randn(2, 4, 14, 14)
    ratio = coupling(x)[0][:, 2:] / x[:, 2:]
    torch.testing.assert_close(ratio, torch.full_like(ratio, torch.sigmoid(torch.tensor(2.0)).item()))


def test_glow_knows_where_the_image_ends():
    torch.manual_seed(0)
    model = trained("glow")
    top = model.flow.steps[-1].levels[-1].steps[-1]
    with torch.no_grad():
        top.network.convolution.edge.normal_()
    z = top(torch.zeros(1, *top.shape))[0].detach()
    assert float((z[0, :, 0, 0] - z[0, :, 1, 1]).abs().min()) > 0


def test_batch_norms_of_real_nvp_follow_what_changes_alone():
    model = trained("realnvp")
    norms = [module for module in model.modules() if isinstance(module, BatchNormalization)]
    assert len(norms) == 2 * 6 + 4
    assert all(norm.mask is not None for norm in norms)


def test_reversible_glow_learns_as_glow_does():
    torch.manual_seed(0)
    batch, spec = Batch(torch.randint(17, (6, 1, 8, 8))), IMAGE
    plain = GLOW.build(spec).double().train()
    reversible = replace(GLOW, reversible=True).build(spec).double().train()
    reversible.load_state_dict(plain.state_dict())
    gradients = []
    for model in (plain, reversible):
        with torch.no_grad():
            torch.manual_seed(1)
            model.log_likelihood(batch)
        torch.manual_seed(2)
        model.log_likelihood(batch).mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)
    levels = [m for m in reversible.modules() if isinstance(m, Reversible)]
    assert len(levels) == 2
    assert all(float(level.inverse_error) < 1e-9 for level in levels)


def test_free_bits_are_of_the_loss_alone():
    torch.manual_seed(0)
    from ancestral.stages import Progress

    model = IAF(replace(IAF.Config.tiny(), free_bits=100.0), IMAGE)
    batch = Batch(torch.randint(17, (4, 1, 8, 8)))
    maps = 2 * model.config.latents
    training = model.train().loss(batch, "training", Progress.at(0, 1))
    charged = float(training.total.detach()) * 64 * math.log(2) - float(training.terms["distortion"])
    assert charged == pytest.approx(maps * 100.0, rel=1e-4)
    with torch.no_grad():
        validation = model.eval().loss(batch, "training", Progress.at(0, 1))
    assert float(validation.total) == pytest.approx(float(validation.terms["bits_per_dim"]), rel=1e-5)


def test_a_posterior_flow_is_autoregressive_with_its_volume():
    torch.manual_seed(0)
    flow = IAF.Config.tiny().build(IMAGE).layers[0].flow.double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(torch.randn_like(parameter))
    z, context = torch.randn(1, 2, 2, 2).double(), torch.randn(1, 8, 2, 2).double()
    jacobian = torch.autograd.functional.jacobian(
        lambda v: flow(v.view(1, 2, 2, 2), context)[0].flatten(), z.flatten()
    )
    # In the order of places, and of maps within a place.
    order = torch.arange(8).view(2, 4).T.flatten()
    triangle = jacobian[order][:, order]
    assert torch.equal(triangle.triu(1), torch.zeros_like(triangle))
    torch.testing.assert_close(-flow(z, context)[1].sum(), triangle.diagonal().log().sum())


@pytest.mark.parametrize(
    ("config", "spec", "said"),
    [
        (Glow.Config.tiny(), Spec(shape=(1, 7, 8)), "that 2 divides, got 7x8; resize the images to 8x8"),
        (
            replace(GLOW, levels=3),
            Spec(shape=(1, 28, 28)),
            "that 8 divides, got 28x28; resize the images to 32x32",
        ),
        (Glow.Config.tiny(), ROWS, "expected images"),
        (FlowPP.Config.tiny(), ROWS, "expected images"),
        (IAF.Config.tiny(), ROWS, "for tables use maf"),
        (RealNVP.Config.tiny(), Spec(shape=(1,), levels=None), "at least 2 channels or columns"),
        (NICE.Config.tiny(), Spec(shape=(1,), levels=None), "for one column use maf"),
        (MAF.Config.tiny(), Spec(shape=(1, 2, 2), levels=4, domain="codes"), "use an autoregressive model"),
    ],
)
def test_data_that_do_not_fit_are_refused(config, spec, said):
    with pytest.raises(UserError, match=said):
        config.build(spec)


def test_one_column_is_enough_for_maf():
    check_model(MAF, (Spec(shape=(1,), levels=None),))


def test_latents_of_another_shape_are_refused():
    with pytest.raises(UserError, match=r"expected latents \(N, 64\), got \(2, 3\)"):
        trained("glow").decode(torch.zeros(2, 3))


@pytest.mark.parametrize(("name", "data"), [("glow", "digits"), ("maf", "table:wine")])
def test_a_killed_training_ends_with_the_same_weights(tmp_path, name, data):
    config = (replace(GLOW, levels=1, reversible=True), MAF.Config.tiny())[name == "maf"]
    every = TrainingOptions(device="cpu", checkpoint_every=3, evaluate_every=3, sample_every=0)
    optimization = Optimization(steps=6, batch_size=16, warmup=0, ema=0.9, keep_best=name == "maf")

    def weights(out):
        ancestral.train(
            name, data=data, out=out, config=config, stages={"training": optimization}, options=every
        )
        return (out / "model" / "model.safetensors").read_bytes()

    whole = weights(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "model")
    shutil.rmtree(tmp_path / "killed" / "checkpoints" / "training" / "step-00000006")
    assert weights(tmp_path / "killed") == whole
    terms = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert all(line["inverse_error"] < 1e-4 for line in terms if name == "glow" and line["split"] == "train")
