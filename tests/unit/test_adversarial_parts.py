"""Parts of the adversarial family, each against a closed form."""

import math

import pytest
import torch
from torch import nn

from ancestral.errors import UserError
from ancestral.nn.adversarial import GAMES, smoothed
from ancestral.nn.augmentation import DifferentiableAugmentation, _colored, _cut, _shifted
from ancestral.nn.gradient_penalty import lipschitz_penalty, zero_centered_penalty
from ancestral.nn.historical import HistoricalAverage
from ancestral.nn.minibatch import MinibatchDiscrimination
from ancestral.nn.normalization import ConditionalBatchNorm
from ancestral.nn.projection import ProjectionHead
from ancestral.nn.virtual_norm import VirtualBatchNorm

P, Q = 0.6, 0.2
"""What a point has of the real and of the generated examples."""


def slope(loss, value):
    """The derivative of a critic's loss by its value at that point; elsewhere it says 0."""
    d = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    rest = torch.zeros(10, dtype=torch.float64)
    loss(torch.cat([d.expand(6), rest[:4]]), torch.cat([d.expand(2), rest[:8]])).backward()
    return float(d.grad)


def test_critics_are_best_where_the_papers_say():
    for name in ("minimax", "non-saturating"):
        assert slope(GAMES[name].critic, math.log(P / Q)) == pytest.approx(0, abs=1e-12)
    assert slope(GAMES["least-squares"].critic, P / (P + Q)) == pytest.approx(0, abs=1e-12)
    assert slope(GAMES["wasserstein"].critic, 0.3) == pytest.approx(Q - P)
    assert [slope(GAMES["hinge"].critic, d) for d in (0.5, -2.0, 2.0)] == pytest.approx([Q - P, -P, Q])
    share = 0.9 * P / (P + Q)
    best = math.log(share / (1 - share))
    assert slope(lambda r, f: smoothed(r, f, 0.9), best) == pytest.approx(0, abs=1e-12)
    with pytest.raises(UserError, match=r"a target in \(0, 1\]"):
        smoothed(torch.zeros(1), torch.zeros(1), 1.2)


def test_generators_follow_the_gradients_of_their_games():
    r, d = torch.tensor([0.3], dtype=torch.float64), 1 / (1 + math.exp(0.7))  # the critic says -.7
    expected = {
        "minimax": -d, "non-saturating": d - 1, "least-squares": -1.7, "wasserstein": -1.0, "hinge": -1.0,
        "relativistic": -1 / (1 + math.exp(-1.0)),
    }  # fmt: skip
    for name, game in GAMES.items():
        f = torch.tensor([-0.7], dtype=torch.float64, requires_grad=True)
        game.generator(f, r).backward()
        assert float(f.grad) == pytest.approx(expected[name]), name
        assert game.relativistic == (name == "relativistic")
    # Pairs, not all with all.
    r, f = torch.tensor([5.0, -5.0]), torch.tensor([5.0, -5.0])
    assert float(GAMES["relativistic"].critic(r, f)) == pytest.approx(math.log(2))


def test_penalties_of_linear_critics_have_closed_forms():
    w = torch.tensor([[3.0, 0.0], [0.0, 4.0]], dtype=torch.float64, requires_grad=True)

    def critic(x):
        return (x[:, 0] * w).sum((1, 2))

    real, fake = torch.randn(2, 8, 1, 2, 2, dtype=torch.float64).unbind(0)
    penalty = lipschitz_penalty(critic, real, fake)  # the norm is over all values: (5 - 1)^2
    assert penalty.item() == pytest.approx(16)
    penalty.backward()
    torch.testing.assert_close(w.grad, 2 * 4 * w.detach() / 5)
    assert lipschitz_penalty(critic, real, fake, target=5.0).item() == pytest.approx(0)
    assert lipschitz_penalty(critic, real, fake, target=2.5).item() == pytest.approx(1)
    assert zero_centered_penalty(critic, real).item() == pytest.approx(12.5)
    assert not real.requires_grad


def test_a_gradient_of_zero_is_penalized_without_nan():
    w = torch.zeros(4, requires_grad=True)
    penalty = lipschitz_penalty(lambda x: x @ w, torch.randn(3, 4), torch.randn(3, 4))
    penalty.backward()
    assert penalty.item() == 1
    assert bool(w.grad.isfinite().all())


def test_each_pair_has_a_point_of_its_own():
    seen = []

    def critic(x):
        seen.append(x.detach().flatten(1))
        return x.flatten(1).sum(1)

    lipschitz_penalty(critic, torch.zeros(64, 3, 2, 2), torch.ones(64, 3, 2, 2))
    assert bool((seen[0] == seen[0][:, :1]).all())  # one number for all values of an example
    assert 0.3 < float(seen[0].mean()) < 0.7
    assert len(seen[0][:, 0].unique()) == 64


def test_minibatch_discrimination_compares_an_example_with_all_others():
    torch.manual_seed(0)
    layer = MinibatchDiscrimination(4, kernels=3, dims=2).double()
    with torch.no_grad():
        layer.weight.normal_()
        layer.log_scale.normal_()
    x = torch.randn(5, 4, dtype=torch.float64)
    weight = layer.weight / layer.weight.norm(dim=0) * layer.log_scale.exp()
    m = torch.einsum("ni,ikd->nkd", x, weight)
    expected = torch.full((5, 3), -1.0, dtype=torch.float64)
    for i in range(5):
        for j in range(5):
            if i != j:
                expected[i] += (-(m[i] - m[j]).abs().sum(1)).exp()
    torch.testing.assert_close(layer(x), expected)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(layer(x[order]), layer(x)[order])
    torch.testing.assert_close(layer(x[:1]), torch.full((1, 3), -1.0, dtype=torch.float64))  # itself not


def test_virtual_batch_normalization_knows_no_batch_mates():
    torch.manual_seed(0)
    layer = VirtualBatchNorm(2, reference=3, eps=0.0).double()
    x = torch.randn(7, 2, 4, 4, dtype=torch.float64) * 3 + 1
    together = layer(x)
    alone = layer(torch.cat([x[:3], x[5:6]]))
    torch.testing.assert_close(alone[3], together[5])
    torch.testing.assert_close(alone[:3], together[:3])
    fixed, own = x[:3], x[5]
    mean = 0.25 * own.mean((1, 2)) + 0.75 * fixed.mean((0, 2, 3))
    square = 0.25 * own.square().mean((1, 2)) + 0.75 * fixed.square().mean((0, 2, 3))
    expected = (own - mean.view(2, 1, 1)) / (square - mean.square()).sqrt().view(2, 1, 1)
    torch.testing.assert_close(together[5], expected)
    torch.testing.assert_close(together[:3].mean((0, 2, 3)), torch.zeros(2, dtype=torch.float64))


def test_conditional_batch_normalization_has_gains_and_biases_of_the_class():
    torch.manual_seed(0)
    layer = ConditionalBatchNorm(2, classes=3).double()
    with torch.no_grad():
        layer.gain.normal_()
        layer.bias.normal_()
    x, labels = torch.randn(6, 2, 4, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
    plain = (x - x.mean((0, 2, 3), keepdim=True)) / (
        x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5
    ).sqrt()
    shape = (6, 2, 1, 1)
    torch.testing.assert_close(
        layer(x, labels), plain * layer.gain[labels].view(shape) + layer.bias[labels].view(shape)
    )
    layer.eval()
    torch.testing.assert_close(layer(x, labels)[2:3], layer(x[2:3], labels[2:3]))


def test_historical_averaging_is_the_distance_from_the_mean_of_all_weights():
    module = nn.Linear(1, 1, bias=False).double()
    average = HistoricalAverage(module)
    for step, value in enumerate((1.0, 2.0, 6.0)):
        nn.init.constant_(module.weight, value)
        distance = average(torch.tensor(step))
        assert torch.equal(distance, average(torch.tensor(step)))  # a step that comes again counts once
    assert float(distance.detach()) == pytest.approx((6 - 3) ** 2)
    distance.backward()
    assert float(module.weight.grad) == pytest.approx(2 * (6 - 3))
    assert not [*average.children()]


def test_augmentation_changes_images_as_its_probability_says():
    torch.manual_seed(0)
    x = torch.rand(2000, 1, 8, 8) - 0.5
    assert torch.equal(DifferentiableAugmentation(0.0)(x), x)
    half = DifferentiableAugmentation(0.5)(x)
    same = (half == x).flatten(1).all(1).float().mean().item()
    # None of three changes, of which a shift is none once in nine times.
    assert same == pytest.approx(0.5 * 0.5 * (0.5 + 0.5 / 9), abs=0.04)


def test_a_shift_moves_all_of_an_image_and_its_gradient_along():
    torch.manual_seed(0)
    x = torch.arange(1.0, 65).view(1, 1, 8, 8).repeat(50, 1, 1, 1).requires_grad_()
    y = _shifted(x)
    seen = set()
    for image in y.detach()[:, 0]:
        found = [
            (a, b)
            for a in (-1, 0, 1)
            for b in (-1, 0, 1)
            if torch.equal(image, rolled(x.detach()[0, 0], a, b))
        ]
        assert len(found) == 1
        seen |= {*found}
    assert len(seen) == 9
    y.sum().backward()
    assert torch.equal(x.grad[0, 0, 1:-1, 1:-1], torch.ones(6, 6))


def test_a_cut_is_half_of_each_side_and_colors_keep_what_they_should():
    torch.manual_seed(0)
    for side in (8, 16, 9):
        cut = (_cut(torch.ones(200, 1, side, side)) == 0)[:, 0]
        rows, columns = cut.any(2).sum(1), cut.any(1).sum(1)
        assert int(rows.max()) == int(columns.max()) == -(-side // 2)  # less at an edge
    x = torch.rand(500, 3, 4, 4)
    gray, brighter = x.mean(1, keepdim=True).expand_as(x), _colored(torch.zeros(500, 3, 4, 4))
    assert float(brighter.abs().max()) <= 0.5  # brightness alone, where all values are equal
    assert bool((brighter == brighter[:, :1, :1, :1]).all())
    colored = _colored(gray)
    torch.testing.assert_close(colored, colored[:, :1].expand_as(x))  # gray stays gray


def rolled(image, down, right):
    """The image, moved, with zeros coming in."""
    wide = torch.zeros(10, 10)
    wide[1 + down : 9 + down, 1 + right : 9 + right] = image
    return wide[1:9, 1:9]


def test_augmentation_adapts_to_a_critic_that_is_too_sure():
    augmentation = DifferentiableAugmentation(0.0)
    for _ in range(10):
        augmentation.adapt(torch.ones(4), 1000)
    assert augmentation.p.item() == pytest.approx(0.02)
    for _ in range(20):
        augmentation.adapt(torch.tensor([1.0, 1.0, 1.0, -1.0]), 1000)  # a mean sign of .5
    assert augmentation.p.item() == 0


def test_a_projection_head_adds_the_inner_product_with_the_class_s_vector():
    torch.manual_seed(0)
    head = ProjectionHead(5, 3).double()
    h, labels = torch.randn(4, 5, dtype=torch.float64), torch.tensor([2, 0, 1, 2])
    found = head(h, labels)
    for i, label in enumerate(labels.tolist()):
        wanted = h[i] @ (head.output.weight[0] + head.classes.weight[label]) + head.output.bias[0]
        torch.testing.assert_close(found[i], wanted)
    # As a function of the class: log p(y | x) of a linear classifier, but for a constant (equation 2).
    differences = head(h, labels) - head(h, labels.roll(1))
    vectors = head.classes.weight[labels] - head.classes.weight[labels.roll(1)]
    torch.testing.assert_close(differences, (vectors * h).sum(1))
    torch.testing.assert_close(ProjectionHead(5)(h.float()).shape, torch.Size([4]))
