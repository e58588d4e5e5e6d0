"""Parts of the growing, attending and styled models, each against a closed form."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, conv_transpose2d, interpolate, leaky_relu

from ancestral.models.adversarial.mapping import Mapping
from ancestral.models.adversarial.stylegan2 import Layer
from ancestral.nn.equalized import EqualizedConv2d, EqualizedLinear, pixel_normalized
from ancestral.nn.minibatch import MinibatchDeviation
from ancestral.nn.orthogonal import orthogonal_penalty
from ancestral.nn.path_length import path_penalty
from ancestral.nn.resampling import blurred, doubled, filtered, halved, upsampled
from ancestral.nn.self_attention import SelfAttention
from ancestral.nn.spectral import spectral_norm
from ancestral.nn.styles import AdaptiveInstanceNorm, ModulatedConv2d, Noise


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_equalized_layers_keep_variances_and_start_as_the_plain_ones():
    x = torch.randn(4000, 50)
    assert EqualizedLinear(50, 30, gain=1.0)(x).std().item() == pytest.approx(1.0, abs=0.05)
    assert EqualizedLinear(50, 30)(x).std().item() == pytest.approx(math.sqrt(2), abs=0.07)
    slow = EqualizedLinear(50, 30, gain=1.0, rate=0.01, bias=1.0)
    assert slow(x).std().item() == pytest.approx(1.0, abs=0.05)
    assert slow(torch.zeros(1, 50)).unique().tolist() == pytest.approx([1.0])
    assert slow.weight.std().item() == pytest.approx(100, rel=0.05)
    maps = torch.randn(64, 16, 8, 8)
    assert EqualizedConv2d(16, 32, 3, gain=1.0)(maps)[..., 2:6, 2:6].std().item() == pytest.approx(
        1, abs=0.05
    )


@pytest.mark.parametrize("rate", [1.0, 0.01])
def test_an_equalized_layer_is_a_plain_one_under_an_adam_that_is_scaled(rate):
    """W' = c W: a step of Adam on W moves W' by c times as much, and eps counts for c times more."""
    equalized = EqualizedLinear(6, 4, gain=1.0, rate=rate, bias=None).double()
    plain = nn.Linear(6, 4, bias=False).double()
    scale = rate / math.sqrt(6)
    with torch.no_grad():
        plain.weight.copy_(equalized.weight * scale)
    adams = [
        torch.optim.Adam(equalized.parameters(), 1e-3, eps=0.0),
        torch.optim.Adam(plain.parameters(), 1e-3 * scale, eps=0.0),
    ]
    for step in range(5):
        x = torch.randn(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        for layer, adam in zip((equalized, plain), adams, strict=True):
            adam.zero_grad()
            layer(x).sin().square().sum().backward()
            adam.step()
    torch.testing.assert_close(equalized.weight * scale, plain.weight, rtol=1e-9, atol=1e-12)


def test_places_are_normalized_to_a_mean_square_of_one():
    x = 5 * torch.randn(3, 7, 2, 2)
    torch.testing.assert_close(pixel_normalized(x).square().mean(1), torch.ones(3, 2, 2))
    assert torch.equal(pixel_normalized(torch.zeros(1, 4)), torch.zeros(1, 4))
    assert pixel_normalized(x.bfloat16()).dtype == torch.bfloat16


def test_groups_of_the_deviation_are_strided():
    """Examples i, i + M, i + 2 M, ... are a group, and identical ones deviate by the root of 1e-8."""
    x = torch.randn(8, 3, 2, 2, dtype=torch.float64)
    found = MinibatchDeviation(4)(x)
    assert torch.equal(found[:, :3], x)
    for i in range(2):
        group = x[i::2]
        wanted = (group.var(0, unbiased=False) + 1e-8).sqrt().mean()
        torch.testing.assert_close(found[i::2, 3], wanted.expand(4, 2, 2))
    same = torch.ones(4, 1, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(MinibatchDeviation()(same)[:, 1], torch.full((4, 2, 2), 1e-4).double())
    # A batch that 4 does not divide has smaller groups: of 6 examples two of 3.
    six = torch.randn(6, 1, 1, 1, dtype=torch.float64)
    wanted = torch.stack([(six[i::2].var(unbiased=False) + 1e-8).sqrt() for i in range(2)])
    torch.testing.assert_close(MinibatchDeviation(4)(six)[:2, 1, 0, 0], wanted)
    assert MinibatchDeviation(4)(six[:1])[0, 1].item() == pytest.approx(1e-4)


def test_attention_begins_as_nothing_and_is_the_weighted_mean_of_pooled_values():
    attention = SelfAttention(16).double()
    x = torch.randn(2, 16, 4, 4, dtype=torch.float64)
    assert torch.equal(attention(x), x)
    with torch.no_grad():
        attention.weight.fill_(0.5)
    found, n = attention(x), 1
    queries = attention.queries(x[n]).flatten(1)
    keys, values = (part(x[n]).unfold(1, 2, 2).unfold(2, 2, 2).amax((3, 4)).flatten(1)
                    for part in (attention.keys, attention.values))  # fmt: skip
    assert keys.shape == (2, 4)
    for place in range(16):
        weights = (keys * queries[:, place : place + 1]).sum(0).softmax(0)
        seen = attention.outputs.weight[:, :, 0, 0] @ (values * weights).sum(1)
        wanted = x[n].flatten(1)[:, place] + 0.5 * seen
        torch.testing.assert_close(found[n].flatten(1)[:, place], wanted)


def test_styles_scale_and_move_what_is_normalized():
    norm = AdaptiveInstanceNorm(3, 5).double()
    x, w = 2 + 3 * torch.randn(4, 3, 6, 6, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    y, (scale, shift) = norm(x, w), norm.style(w).chunk(2, 1)
    torch.testing.assert_close(y.mean((2, 3)), shift)
    torch.testing.assert_close(y.std((2, 3), unbiased=False), (1 + scale).abs())


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("double", [True, False])
def test_a_modulated_convolution_is_one_of_weights_of_each_example(demodulate, double):
    layer = ModulatedConv2d(3, 4, 3, 5, demodulate=demodulate, double=double).double()
    x, w = torch.randn(2, 3, 6, 6, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    found = layer(x, w)
    for i in range(2):
        weight = layer.weight * layer.scale * layer.style(w[i : i + 1]).view(1, 3, 1, 1)
        if demodulate:
            weight = weight * (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt()
        if double:
            wanted = 4 * filtered(conv_transpose2d(x[i : i + 1], weight.transpose(0, 1), stride=2), padding=1)
        else:
            wanted = conv2d(x[i : i + 1], weight, padding=1)
        torch.testing.assert_close(found[i : i + 1], wanted)
    assert found.shape[2] == (12 if double else 6)


def test_noise_is_nothing_at_first():
    x, plane = torch.randn(2, 3, 4, 4), torch.randn(2, 1, 4, 4)
    noise = Noise(3)
    assert torch.equal(noise(x, plane), x)
    with torch.no_grad():
        noise.weight[0, 1] = 2.0
    torch.testing.assert_close(noise(x, plane)[:, 1], x[:, 1] + 2 * plane[:, 0])


@pytest.mark.parametrize("double", [True, False])
def test_a_layer_s_gain_is_that_of_its_rectifier(double):
    layer = Layer(3, 5, 4, double=double)
    with torch.no_grad():
        layer.noise.fill_(0.3)
        layer.bias.normal_()
    x, w, plane = torch.randn(2, 3, 4, 4), torch.randn(2, 4), torch.randn(2, 1, *[8 if double else 4] * 2)
    before = layer.convolution(x, w) + 0.3 * plane + layer.bias
    torch.testing.assert_close(layer(x, w, plane), 2**0.5 * leaky_relu(before, 0.2))


def test_filters_have_a_gain_of_one_and_know_their_places():
    ones = torch.ones(1, 2, 8, 8)
    for found in (blurred(ones), upsampled(ones)[..., 2:-2, 2:-2], filtered(ones, 2)[..., 3:-3, 3:-3]):
        inner = found[..., 1:-1, 1:-1]
        torch.testing.assert_close(inner, torch.ones_like(inner))
    assert (upsampled(ones).shape, filtered(ones, 1).shape) == ((1, 2, 16, 16), (1, 2, 7, 7))
    point = torch.zeros(1, 1, 5, 5)
    point[0, 0, 2, 2] = 16.0
    assert blurred(point)[0, 0, 1:4, 1:4].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    x = torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(halved(doubled(x)), x)
    # A line stays a line: interpolation without a shift.
    line = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 1, 8, 8)
    wanted = interpolate(line, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(upsampled(line)[..., 4:-4, 4:-4], wanted[..., 4:-4, 4:-4])


def test_orthogonal_penalty_has_its_whole_gradient():
    """4 (W W^T o (1 - I)) W: the authors' code has half of it."""
    weight = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    orthogonal_penalty([weight]).backward()
    products = weight.detach() @ weight.detach().t()
    wanted = 4 * (products - products.diagonal().diag()) @ weight.detach()
    torch.testing.assert_close(weight.grad, wanted)
    assert orthogonal_penalty([3 * torch.eye(4)]).item() == 0.0
    tall, wide = torch.randn(5, 3, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    wanted = 0.0
    for matrix in (tall, wide):
        products = matrix @ matrix.t()
        wanted = wanted + (products - products.diagonal().diag()).square().sum()
    torch.testing.assert_close(orthogonal_penalty([tall, wide]), wanted)


def test_path_lengths_of_a_linear_generator():
    """Images A w: the gradient is A^T y, and its mean square over noise the squared norm of A by places."""
    a = torch.randn(3 * 4 * 4, 5, dtype=torch.float64)
    w = torch.randn(4000, 2, 5, dtype=torch.float64, requires_grad=True)
    images = (w.mean(1) @ a.t()).view(-1, 3, 4, 4)
    mean = torch.zeros((), dtype=torch.float64)
    penalty, length = path_penalty(w, images, mean)
    assert mean.item() == pytest.approx(0.01 * length.item())
    # Each of two layers has half of the gradient.
    squared = (penalty + 2 * mean * length - mean**2).item()
    assert squared == pytest.approx(0.25 * a.square().sum().item() / 16, rel=0.05)


def test_spectral_norm_divides_by_the_largest_singular_value():
    """The gradient goes through sigma, as u^T W v, and not through u and v (section 2.1, equation 12)."""
    layer = spectral_norm(nn.Conv2d(3, 6, 3)).double()
    weight, vector = layer.parametrizations.weight.original, layer.parametrizations.weight[0].u
    for _ in range(300):
        layer(torch.randn(1, 3, 5, 5, dtype=torch.float64))
    u, s, vt = torch.linalg.svd(weight.detach().flatten(1), full_matrices=False)
    torch.testing.assert_close(vector.abs(), u[:, 0].abs(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(layer.weight.detach(), weight.detach() / s[0])
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    (layer(x).sin().sum() + layer(-x).cos().sum()).backward()  # two passes, one backward
    with torch.no_grad():
        fixed = (weight / s[0]).requires_grad_()
    bias = layer.bias.detach()
    (conv2d(x, fixed, bias).sin().sum() + conv2d(-x, fixed, bias).cos().sum()).backward()
    inner = (fixed.grad * fixed.detach()).sum()
    wanted = (fixed.grad.flatten(1) - inner * torch.outer(u[:, 0], vt[0])) / s[0]
    torch.testing.assert_close(weight.grad.flatten(1), wanted, rtol=1e-4, atol=1e-6)


def test_evaluation_moves_no_vector_of_the_spectral_norm_and_needs_none_that_is_near():
    """As where weights are averages: their vectors are averages too, and not those of these weights."""
    layer = spectral_norm(nn.Linear(20, 10)).eval()
    vector = layer.parametrizations.weight[0].u
    kept = vector.clone()
    layer(torch.randn(3, 20))
    assert torch.equal(vector, kept)
    vector.copy_(0.3 * torch.randn(10))
    assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1.0, rel=0.1)
    layer.train()(torch.randn(3, 20))
    assert not torch.equal(vector, kept)
    assert vector.norm().item() == pytest.approx(1.0)


def test_the_mean_of_w_follows_training_alone_and_psi_goes_towards_it():
    mapping = Mapping(4, 5, 2, 3)
    z, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    w = mapping(z, labels)
    assert torch.equal(mapping.mean, torch.zeros(5))
    mapping.follow(w)
    torch.testing.assert_close(mapping.mean, 0.005 * w.detach().mean(0))
    near = mapping.spread(z, labels, 4, 0.0, 3)
    assert all(torch.equal(near[i, :3], mapping.mean.expand(3, -1)) for i in range(6))
    torch.testing.assert_close(near[:, 3], w)
    torch.testing.assert_close(mapping.spread(z, labels, 4, 1.0, 3), w.unsqueeze(1).expand(-1, 4, -1))
    assert not torch.allclose(w, mapping(z, labels.roll(1)))


def test_styles_are_mixed_at_one_place_of_the_layers():
    torch.manual_seed(0)
    mapping = Mapping(4, 2, 2, 0)
    w = torch.zeros(3, 2)
    cuts = [int((mapping.mixed(w, None, 6, 1.0)[0, :, 0] == 0).sum()) for _ in range(200)]
    assert set(cuts) == {1, 2, 3, 4, 5}
    ws = mapping.mixed(w, None, 6, 1.0)
    assert torch.equal((ws == 0).all(2), (ws == 0).all(2)[:1].expand(3, -1)), "one cut for the batch"
    assert not torch.equal(ws[0, -1], ws[1, -1]), "another style each"
    assert torch.equal(mapping.mixed(w, None, 6, 0.0), torch.zeros(3, 6, 2))
    assert torch.equal(mapping.mixed(w, None, 1, 1.0), torch.zeros(3, 1, 2))
    share = sum(bool(mapping.mixed(w, None, 6, 0.9).any()) for _ in range(500)) / 500
    assert share == pytest.approx(0.9, abs=0.05)
