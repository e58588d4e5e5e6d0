"""Bijections against autograd, closed forms and torch's own distributions."""

import math
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, Normal
from torch.utils.flop_counter import FlopCounterMode

from ancestral.bijections import (
    MADE,
    ActNorm,
    Additive,
    Affine,
    BatchNormalization,
    Bijection,
    Composition,
    Coupling,
    Inverse,
    Invertible1x1,
    LogisticMixtureCDF,
    Logit,
    MaskedAutoregressive,
    MaskedCoupling,
    MultiScale,
    NormalMixtureCDF,
    Permutation,
    Rescale,
    Reshape,
    Reversal,
    Reversible,
    Scaling,
    Squeeze,
    Variational,
    checkerboard,
)
from ancestral.bijections.base import no_change
from ancestral.distributions.discretized import log_ndtr, ndtri_exp
from ancestral.errors import UserError
from ancestral.spec import Spec
from ancestral.testing import check_bijection


class Network(nn.Module):
    """Of all values together, so that nothing is independent by its form alone."""

    def __init__(self, inputs: int, outputs: int, context: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs + context, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, outputs)
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        flat = x.flatten(1) if context is None else torch.cat([x.flatten(1), context], 1)
        return self.layers(flat).view(len(x), -1, *x.shape[2:])


def trained(module: nn.Module, by: float = 0.3) -> nn.Module:
    """The module with weights as a training may leave them."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return module


def normalized(module: nn.Module, x: Tensor) -> nn.Module:
    module.train()
    module(2 * x + 1)
    return module


IMAGE, ROW, MAP = (3, 4, 2, 2), (3, 5), (3, 2, 4, 4)
ELEMENTWISE = {
    "additive": Additive(),
    "affine exp": Affine("exp"),
    "affine tanh": Affine("tanh"),
    "affine sigmoid": Affine("sigmoid"),
    "logistic mixture": LogisticMixtureCDF(4),
    "normal mixture": NormalMixtureCDF(3),
}
CASES = {
    **{
        f"coupling, {name}": (lambda e=e: trained(Coupling(e, Network(8, 8 * e.parameters)), 0.1), IMAGE)
        for name, e in ELEMENTWISE.items()
    },
    **{
        f"masked coupling, {name}": (
            lambda e=e: trained(MaskedCoupling(e, Network(16, 16 * e.parameters), checkerboard(2, 2)), 0.1),
            IMAGE,
        )
        for name, e in ELEMENTWISE.items()
    },
    **{
        f"autoregressive, {name}": (
            lambda e=e: trained(MaskedAutoregressive(e, MADE(5, e.parameters, (7, 9)))),
            ROW,
        )
        for name, e in ELEMENTWISE.items()
    },
    "coupling of an odd number": (
        lambda: trained(Coupling(Affine(), Network(2, 6), stays="second")),
        ROW,
    ),
    "1x1, LU": (lambda: trained(Invertible1x1(4), 0.1), IMAGE),
    "1x1": (lambda: trained(Invertible1x1(4, lu=False), 0.1), IMAGE),
    "1x1 of rows": (lambda: trained(Invertible1x1(5), 0.1), ROW),
    "scaling": (lambda: trained(Scaling(4)), IMAGE),
    "activation norm": (lambda: trained(normalized(ActNorm(4), torch.randn(IMAGE))), IMAGE),
    "batch normalization": (lambda: trained(normalized(BatchNormalization(4), torch.randn(IMAGE))), IMAGE),
    "masked batch normalization": (
        lambda: trained(normalized(BatchNormalization(4, mask=checkerboard(2, 2)), torch.randn(IMAGE))),
        IMAGE,
    ),
    "rescale": (lambda: Rescale(1.0, -5.0), ROW),
    "permutation": (lambda: Permutation([2, 0, 1, 4, 3]), ROW),
    "reversal": (Reversal, ROW),
    "reshape": (lambda: Reshape((2, 4, 4), (32,)), MAP),
    "squeeze": (Squeeze, MAP),
    "squeeze, diagonal": (lambda: Squeeze(diagonal=True), MAP),
    "inverse": (lambda: Inverse(trained(MaskedAutoregressive(Affine("exp"), MADE(5, 2, (7,))))), ROW),
    "multi-scale": (lambda: multi_scale(Composition), MAP),
    "multi-scale, reversible": (lambda: multi_scale(Reversible), MAP),
}


def multi_scale(composition: type[Composition]) -> Bijection:
    first = composition(Squeeze(), ActNorm(8), Invertible1x1(8), Coupling(Affine("sigmoid"), Network(16, 32)))
    second = composition(Squeeze(), Coupling(Affine(), Network(8, 16)))
    given = Coupling(Affine("exp"), Network(16, 32))
    return trained(MultiScale([first, second], [(8, 2, 2), (16, 1, 1)], [given]), 0.1)


@pytest.mark.parametrize("name", CASES)
def test_bijections_keep_their_word(name):
    torch.manual_seed(0)
    build, shape = CASES[name]
    check_bijection(build(), torch.randn(shape))


def test_logit_keeps_its_word_at_the_ends():
    check_bijection(Logit(0.05), torch.tensor([[0.0, 1.0, 0.5], [1e-6, 1 - 1e-6, 0.3]]))


@pytest.mark.parametrize("elementwise", ELEMENTWISE.values(), ids=ELEMENTWISE.keys())
def test_conditions_reach_every_value(elementwise):
    torch.manual_seed(0)
    network = MADE(4, elementwise.parameters, (8, 8), context=3)
    flow = trained(MaskedAutoregressive(elementwise, network), 0.1).double()
    x, context = torch.randn(3, 4).double(), torch.randn(3, 3).double()
    check_bijection(flow, x, context)
    shift = (flow(x, context)[0] - flow(x, context + 1)[0]).abs()
    assert bool((shift > 1e-6).all())


class Wrong(Bijection):
    """A shift that is wrong in one way."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.fault == "edits":
            x += 1
            return x, no_change(x)
        if self.fault == "depends":
            return x + x.mean(0), no_change(x)
        scale = 2.0 if self.fault == "volume" else 1.0
        return scale * x + 1, no_change(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        scale = 2.0 if self.fault == "volume" else 1.0
        x = (z - 1) / scale
        if self.fault == "depends":
            x = z - z.mean(0) / 2
        return x + (self.fault == "inverse"), no_change(z) + (self.fault == "opposite")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("edits", "changes the tensor"),
        ("depends", "depends on others"),
        ("volume", "is not autograd's"),
        ("inverse", "does not lead back"),
        ("opposite", "is not the opposite"),
    ],
)
def test_what_is_wrong_is_named(fault, said):
    torch.manual_seed(0)
    with pytest.raises(AssertionError, match=said):
        check_bijection(Wrong(fault), torch.randn(3, 4))


@pytest.mark.parametrize("hidden", [(1,), (3,), (5, 9), (64, 64)])
@pytest.mark.parametrize("dims", [1, 2, 6])
def test_a_value_sees_those_before_it_and_all_of_them(dims, hidden):
    torch.manual_seed(0)
    network = trained(MADE(dims, 2, hidden, activation=torch.tanh)).double()
    x = torch.randn(1, dims, dtype=torch.float64)
    seen = torch.autograd.functional.jacobian(lambda row: network(row[None])[0], x[0]).abs() > 0
    before = torch.ones(dims, dims).tril(-1).bool().repeat(2, 1)
    assert not bool((seen & ~before).any())
    if min(hidden) >= dims - 1 and min(hidden) > 1:
        assert torch.equal(seen, before)


def test_a_stream_multiplies_no_more_than_a_pass():
    torch.manual_seed(0)
    flow = trained(MaskedAutoregressive(Affine("exp"), MADE(20, 2, (64, 64))), 0.05)
    x = torch.randn(16, 20)
    with torch.no_grad():
        with FlopCounterMode(display=False) as one:
            z, _ = flow(x)
        with FlopCounterMode(display=False) as streamed:
            back, _ = flow.inverse(z)
    torch.testing.assert_close(back, x, atol=1e-4, rtol=1e-4)
    assert 0 < streamed.get_total_flops() <= one.get_total_flops()


@pytest.mark.parametrize("constant", [7.0, 3.3, 100.1, 0.0])
def test_activation_norm_starts_from_the_first_batch_of_a_training_and_never_again(constant):
    torch.manual_seed(0)
    x = 3 * torch.randn(50, 4, 5, 5) + torch.tensor([1.0, -2, 3, 100]).view(4, 1, 1)
    x[:, 2] = constant
    norm = ActNorm(4, speed=3.0).eval()
    assert torch.equal(norm(x)[0], x)
    assert not bool(norm.started)
    norm.train()
    z, _ = norm(x)
    expected = torch.tensor([1.0, 1, 0, 1])
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.std((0, 2, 3), unbiased=False), expected, atol=1e-4, rtol=0)
    state = {name: value.clone() for name, value in norm.state_dict().items()}
    again = ActNorm(4, speed=3.0)
    again.load_state_dict(state)
    again.train()(x + 5)
    norm(x + 5)
    for other in (norm, again):
        assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())


def test_batch_normalization_is_a_density_only_in_evaluation():
    torch.manual_seed(0)
    norm, x = BatchNormalization(3), torch.randn(20, 3)
    norm.train()
    z, log_det = norm(5 * x + 1)
    torch.testing.assert_close(z.mean(0), torch.zeros(3), atol=1e-6, rtol=0)
    closed = -0.5 * ((5 * x).var(0, unbiased=False) + 1e-5).log().sum()
    torch.testing.assert_close(log_det, closed.expand(20))
    with pytest.raises(UserError, match="evaluation mode to invert it"):
        norm.inverse(z)
    norm.eval()
    alone = torch.cat([norm(row[None])[0] for row in x])
    torch.testing.assert_close(norm(x)[0], alone)


def test_a_masked_normalization_counts_what_changes():
    torch.manual_seed(0)
    mask, x = checkerboard(3, 3), torch.randn(40, 2, 3, 3)
    norm = BatchNormalization(2, mask=mask).train()
    z, _ = norm(x)
    assert torch.equal(z[:, :, mask[0]], x[:, :, mask[0]])
    changed = z[:, :, ~mask[0]]
    torch.testing.assert_close(changed.mean((0, 2)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(changed.std((0, 2), unbiased=False), torch.ones(2), atol=1e-4, rtol=0)


def test_a_rotation_keeps_its_fixed_parts():
    torch.manual_seed(0)
    mix = Invertible1x1(6)
    assert {name for name, _ in mix.named_parameters()} == {"lower", "upper", "log_scale"}
    assert {"permutation", "signs"} <= mix.state_dict().keys()
    matrix = mix.matrix().detach()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(6), atol=1e-5, rtol=0)
    trained(mix)
    determinant = torch.linalg.slogdet(mix.matrix().double())[1].float()
    torch.testing.assert_close(mix(torch.randn(1, 6))[1], determinant[None])


@pytest.mark.parametrize("lu", [True, False])
def test_a_rotation_comes_back_from_its_state_and_from_half_precision(lu):
    torch.manual_seed(0)
    mix = trained(Invertible1x1(6, lu=lu), 0.1)
    again = Invertible1x1(6, lu=lu)
    again.load_state_dict(mix.state_dict())
    x = torch.randn(2, 6, 3, 3)
    assert torch.equal(again(x)[0], mix(x)[0])
    with torch.autocast("cpu", torch.bfloat16):
        z, _ = mix(x)
        torch.testing.assert_close(mix.inverse(z)[0], x, atol=1e-5, rtol=1e-4)
    assert z.dtype == torch.float32


def test_a_matrix_without_an_inverse_knows_it():
    mix = Invertible1x1(3, lu=False)
    assert not mix.is_singular
    with torch.no_grad():
        mix.weight[0] = mix.weight[1]
    assert mix.is_singular
    assert not bool(mix.inverse(torch.randn(2, 3))[0].isfinite().any())


@pytest.mark.parametrize("elementwise", ELEMENTWISE.values(), ids=ELEMENTWISE.keys())
def test_gradients_of_an_inverse_are_those_of_an_implicit_function(elementwise):
    torch.manual_seed(0)
    parameters = 0.3 * torch.randn(40, elementwise.parameters, dtype=torch.float64)
    x = torch.randn(40, 1, dtype=torch.float64)
    z = elementwise.forward(x, parameters)[0].detach().requires_grad_()
    parameters.requires_grad_()
    found, log_slope = elementwise.inverse(z, parameters)
    weights = torch.randn(40, 1, dtype=torch.float64)
    ours = torch.autograd.grad(((found + log_slope) * weights).sum(), (z, parameters))
    # The same function with x, which is differentiated implicitly: dx = (dz - dF/dparameters) / F'.
    again = x.clone().requires_grad_()
    forward, slope = elementwise.forward(again, parameters)
    slope = slope + 0 * forward  # that of an addition is constant
    by = torch.autograd.grad((-slope * weights).sum(), (again, parameters), retain_graph=True)
    by_x = weights + by[0]
    to_z = by_x * (-slope.detach()).exp()
    (through,) = torch.autograd.grad((forward * -to_z).sum(), (parameters,))
    torch.testing.assert_close(ours[0], to_z, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(ours[1], through + by[1], rtol=1e-6, atol=1e-8)


def test_a_network_of_the_wrong_width_is_named():
    coupling = Coupling(Affine("exp"), Network(3, 3))
    with pytest.raises(UserError, match="expected 2 parameters for each of 3 channels that change, got 3"):
        coupling(torch.randn(2, 6))


def test_a_squeeze_puts_places_in_order():
    image = torch.tensor([[[[0.0, 1], [2, 3]]]])
    assert Squeeze()(image)[0].flatten().tolist() == [0, 1, 2, 3]
    assert Squeeze(diagonal=True)(image)[0].flatten().tolist() == [0, 3, 1, 2]
    with pytest.raises(UserError, match="that 2 divides, got 5x4; resize the images to 4x4"):
        Squeeze()(torch.zeros(1, 1, 5, 4))


@pytest.mark.parametrize("bits", [5, 8])
@pytest.mark.parametrize("alpha", [0.05, 1e-6])
def test_preprocessing_counts_in_bits_as_the_papers_do(bits, alpha):
    # MAF, equation of section 4.3: bits/dim of x from the density of its logit.
    torch.manual_seed(0)
    levels, d = 2**bits, 12
    x = torch.randint(levels, (50, d)).double() + torch.rand(50, d).double()
    z, log_det = Composition(Rescale(0, levels), Logit(alpha))(x)
    log_base = Normal(0.0, 1.0).log_prob(z).sum(1)
    ours = -(log_base + log_det) / (d * math.log(2))
    y = alpha + (1 - 2 * alpha) * x / levels
    papers = (
        -log_base / (d * math.log(2)) - math.log2(1 - 2 * alpha) + bits + (y.log2() + (1 - y).log2()).mean(1)
    )
    torch.testing.assert_close(ours, papers)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mixtures_hold_in_the_tails(dtype):
    torch.manual_seed(0)
    x = torch.tensor([[-60.0, -9.0, 0.0, 9.0, 60.0]], dtype=dtype)
    for elementwise in (LogisticMixtureCDF(3), NormalMixtureCDF(3)):
        parameters = 0.2 * torch.randn(1, 5 * elementwise.parameters, dtype=dtype)
        parameters.requires_grad_()
        z, log_slope = elementwise.forward(x, parameters)
        assert bool((z.isfinite() & log_slope.isfinite()).all())
        (gradient,) = torch.autograd.grad(z.sum() + log_slope.sum(), parameters)
        assert bool(gradient.isfinite().all())
        back, _ = elementwise.inverse(z.detach(), parameters.detach())
        torch.testing.assert_close(back, x, rtol=1e-4, atol=1e-3)


def test_a_mixture_of_normals_is_one():
    torch.manual_seed(0)
    mixture, k = NormalMixtureCDF(4), 4
    parameters, x = torch.randn(7, 12, dtype=torch.float64), torch.randn(7, 1, dtype=torch.float64)
    z, log_slope = mixture.forward(x, parameters)
    ours = Normal(0.0, 1.0).log_prob(z) + log_slope
    logits, loc, log_scale = parameters.view(7, 3, k).unbind(1)
    loc = loc + torch.linspace(-2, 2, k, dtype=torch.float64)
    theirs = MixtureSameFamily(Categorical(logits=logits), Normal(loc, log_scale.exp() / k)).log_prob(x[:, 0])
    torch.testing.assert_close(ours[:, 0], theirs)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_quantiles_of_the_normal_hold_in_the_tail(dtype, tolerance):
    z = torch.tensor([-1e4, -300.0, -30.0, -5.0, -4.5, -4.0, -1.0, 0.0, 0.5, 3.0], dtype=dtype)
    log_p = log_ndtr(z).requires_grad_()
    again = ndtri_exp(log_p)
    torch.testing.assert_close(again.detach(), z, rtol=tolerance, atol=tolerance)
    (slope,) = torch.autograd.grad(again.sum(), log_p)
    near = z > -20
    closed = (log_p.detach() - Normal(0.0, 1.0).log_prob(z)).exp()  # dz/dlog p = p / density
    torch.testing.assert_close(slope[near], closed[near], rtol=1e-3, atol=0)


def kept(flow: Bijection, x: Tensor) -> int:
    """Bytes that the graph keeps for the backward pass, without the weights."""
    own, total = {p.data_ptr() for p in flow.parameters()}, 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal total
        total += 0 if tensor.data_ptr() in own else tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        z, log_det = flow(x)
    (z.square().sum() + log_det.sum()).backward()
    return total


def steps(depth: int, dropout: float = 0.0) -> list[Bijection]:
    torch.manual_seed(depth)
    parts: list[Bijection] = []
    for _ in range(depth):
        parts += [ActNorm(4), Invertible1x1(4), Coupling(Affine(), Network(8, 16, dropout=dropout))]
    return [trained(normalized(part, torch.randn(IMAGE)), 0.05) for part in parts]


def test_a_reversible_composition_keeps_no_activations():
    x = torch.randn(IMAGE)
    plain = [kept(Composition(*steps(depth)), x) for depth in (2, 4)]
    reversible = [kept(Reversible(*steps(depth)), x) for depth in (2, 4)]
    assert plain[1] > 1.8 * plain[0]
    assert reversible[0] == reversible[1] == 2 * x.numel() * x.element_size()


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_reversible_gradients_are_autograds(dropout):
    def gradients(composition: type[Composition]) -> list[Tensor]:
        flow = composition(*steps(3, dropout)).double().train()
        x = torch.randn(IMAGE, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
        torch.manual_seed(2)  # of the dropout
        z, log_det = flow(x)
        (z.square().sum() + (log_det * torch.arange(3)).sum()).backward()
        after = torch.rand(1)
        if isinstance(flow, Reversible):
            assert 0 <= float(flow.inverse_error) < 1e-12
        return [x.grad, *(p.grad for p in flow.parameters()), after]

    for ours, autograds in zip(gradients(Reversible), gradients(Composition), strict=True):
        torch.testing.assert_close(ours, autograds, rtol=1e-9, atol=1e-9)


def test_learned_noise_is_a_distribution_between_0_and_1():
    # The integral over u of 1 is the mean of 1 / q(u) under q.
    torch.manual_seed(0)
    spec = Spec(shape=(2,), levels=4)
    flow = trained(Coupling(Affine("exp"), Network(1, 2, context=2)), 0.3)
    noise = Variational(spec, flow, nn.Identity()).double()
    x = torch.tensor([[1, 3]]).expand(20_000, -1).double()
    u, log_q = noise(x)
    assert bool(((u >= 0) & (u <= 1)).all())
    weights = (-log_q).exp().detach()
    assert abs(float(weights.mean()) - 1) < 4 * float(weights.std()) / math.sqrt(len(x))
    assert float(weights.std()) > 0.1  # of noise that is not uniform


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    timeout = timedelta(seconds=60)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timeout
    )
    torch.save(processed(slice(4 * rank, 4 * rank + 4)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def processed(share: slice) -> dict[str, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(8, 4, 2, 2, dtype=torch.float64)[share]
    flow = Composition(ActNorm(4), BatchNormalization(4, mask=checkerboard(2, 2))).double().train()
    z, log_det = flow(x)
    return {**flow.state_dict(), "z": z.detach(), "log_det": log_det.detach()[:1]}


def test_two_processes_normalize_as_one(tmp_path):
    torch.multiprocessing.start_processes(work, (str(tmp_path),), 2, start_method="forkserver")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    whole = processed(slice(None))
    torch.testing.assert_close(torch.cat([first.pop("z"), second["z"]]), whole.pop("z"))
    for name, value in first.items():
        torch.testing.assert_close(value, whole[name], msg=lambda text, name=name: f"{name}: {text}")
