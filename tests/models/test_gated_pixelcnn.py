"""The Gated PixelCNN sees exactly the declared past, and its samples follow its likelihood."""

import itertools
import math

import pytest
import torch

from ancestral.batch import Batch
from ancestral.errors import UserError
from ancestral.models.autoregressive.gated_pixelcnn import GatedPixelCNN
from ancestral.nn.causal import RasterConv2d, channel_groups
from ancestral.spec import Spec
from ancestral.stages import Progress
from ancestral.testing import _check_chi_square, enumerate_examples

PROGRESS = Progress.at(0, 1)


def build(spec, seed=0, **options):
    torch.manual_seed(seed)
    config = GatedPixelCNN.Config(**({"width": 8, "layers": 2, "head": 9} | options))
    model = GatedPixelCNN(config, spec).double().eval()
    with torch.no_grad():
        for p in model.parameters():  # nobody's initial values; biases keep ReLUs alive
            p.add_(0.3 * torch.randn_like(p))
    return model


def parameters_of(distribution):
    """All that the distribution depends on, ``(N, C, H, W, P)``."""
    parts = [
        getattr(distribution, name) for name in ("logits", "loc", "log_scale") if hasattr(distribution, name)
    ]
    return torch.cat(parts, -1)


def past(shape, kernel, layers):
    """Whether output (c, r, s) may depend on input (c', r', s'), from the paper's geometry alone, ``(C, H, W,
    C, H, W)``.

    The row so far by at most half a kernel a layer; of the rows above, a rectangle that grows by as much to
    all three sides.
    """
    far = (layers + 1) * (kernel // 2)
    seen = torch.zeros(*shape, *shape, dtype=torch.bool)
    for output, inputs in itertools.product(itertools.product(*map(range, shape)), repeat=2):
        (c, row, column), (c_in, row_in, column_in) = output, inputs
        up, left = row - row_in, column - column_in
        here = up == 0 and left == 0 and c_in < c
        before = up == 0 and 0 < left <= far
        above = 0 < up <= 1 + far and abs(left) <= far
        seen[(*output, *inputs)] = here or before or above
    return seen


GEOMETRIES = {
    "gray": ((1, 5, 7), {}),
    "gray, 5x5": ((1, 6, 9), {"kernel": 5, "layers": 1}),
    "one layer": ((1, 7, 8), {"layers": 1}),
    "RGB, width 8": ((3, 4, 5), {}),
    "RGB, width 9": ((3, 5, 3), {"width": 9, "layers": 1}),
    "5 channels, width 7": ((5, 3, 4), {"width": 7, "head": 8, "layers": 1}),
    "as many channels as width": ((5, 3, 3), {"width": 5, "head": 15, "layers": 1}),
    "a column": ((2, 6, 1), {}),
    "a row": ((2, 1, 9), {}),
}


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("likelihood", ["categorical", "logistic-mixture"])
def test_jacobian_is_the_declared_past(name, likelihood):
    shape, options = GEOMETRIES[name]
    spec = Spec(shape=shape, levels=4)
    options = {"layers": 2, "kernel": 3} | options
    x = (
        torch.rand(4, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3
    ).requires_grad_()
    declared = past(shape, options["kernel"], options["layers"])
    seen = torch.zeros_like(declared)
    # A ReLU that is dead in one network, which would pass for a blind spot, is alive in another.
    for seed in range(16):
        if seed >= 4 and bool(seen[declared].all()):
            break
        model = build(spec, seed, likelihood=likelihood, components=2, **options)
        outputs = parameters_of(model.conditionals(x))
        outputs = (outputs * torch.randn(outputs.shape[1:], dtype=torch.float64)).sum(-1)
        for position in itertools.product(*map(range, shape)):
            (gradient,) = torch.autograd.grad(outputs[(slice(None), *position)].sum(), x, retain_graph=True)
            seen[position] |= (gradient != 0).any(0)
    # Exact zeros: what the masks cut is multiplied by 0.
    assert torch.equal(seen, declared)


@pytest.mark.parametrize("shape", [(1, 4, 6), (2, 4, 3), (3, 3, 4)])
def test_codes_are_seen_as_the_declared_past(shape):
    spec = Spec(shape=shape, levels=5, domain="codes")
    seen = torch.zeros(*shape, *shape, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for seed in range(6):
            model = build(spec, seed, layers=1, width=8)
            x = torch.randint(5, (1, *shape), generator=generator)
            changed = x.repeat(x.numel(), 1, 1, 1)  # one changed code in each
            for i, position in enumerate(itertools.product(*map(range, shape))):
                changed[(i, *position)] = (changed[(i, *position)] + 1 + i % 4) % 5
            difference = model.conditionals(changed).logits - model.conditionals(x.expand_as(changed)).logits
            # float64 rounding may differ between places of a batch; a real path changes the logits by far
            # more than 1e-12.
            moved = (difference.abs() > 1e-12).any(-1)
            seen |= moved.movedim(0, -1).reshape(*shape, *shape)
    assert torch.equal(seen, past(shape, 3, 1))


@pytest.mark.parametrize("domain", ["image", "codes"])
def test_examples_of_a_batch_are_independent(domain):
    spec = Spec(shape=(2, 3, 3), levels=4, classes=2, domain=domain)
    model = build(spec).train()
    x = torch.randint(4, (5, 2, 3, 3), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(5) % 2
    alone = torch.cat([model.log_likelihood(Batch(x[i : i + 1], labels[i : i + 1])) for i in range(5)])
    torch.testing.assert_close(
        model.log_likelihood(Batch(x, labels)), alone, rtol=1e-12, atol=1e-12
    )  # float64 rounding


@pytest.mark.parametrize(("width", "groups"), [(8, 3), (7, 5), (6, 3), (5, 5), (64, 3)])
def test_channel_groups_are_even_and_in_order(width, groups):
    group = channel_groups(width, groups)
    counts = torch.bincount(group, minlength=groups)
    assert torch.equal(group, group.sort().values)
    assert len(counts) == groups
    assert counts.max() - counts.min() <= 1


def test_masked_weights_follow_the_weights():
    """The mask is applied at every pass, so that a step, a load or an average never leaves a stale or leaking
    weight."""
    layer = RasterConv2d(torch.tensor([0, 1]), torch.tensor([0, 1]), left=1, mask="A")
    assert "seen" not in layer.state_dict()
    x = torch.randn(1, 2, 1, 1)
    with torch.no_grad():
        layer.weight.fill_(5.0)
        layer.bias.zero_()
    # At the only position there is no left, and mask A lets channel 1 see channel 0 alone.
    torch.testing.assert_close(layer(x)[0, :, 0, 0], torch.tensor([0.0, 5.0]) * x[0, 0, 0, 0])


ENUMERABLE = [
    Spec(shape=(1, 2, 3), levels=3),
    Spec(shape=(2, 2, 2), levels=2),
    Spec(shape=(3, 2, 1), levels=3),
    Spec(shape=(3, 1, 2), levels=3, domain="codes"),
    Spec(shape=(1, 3, 2), levels=3, classes=2, domain="codes"),
]


def kinds(spec):
    return ["categorical", "logistic-mixture"] if spec.ordered else ["categorical"]


@pytest.mark.parametrize(("spec", "likelihood"), [(s, k) for s in ENUMERABLE for k in kinds(s)])
def test_probabilities_sum_to_one_and_samples_follow_them(spec, likelihood):
    model = build(spec, likelihood=likelihood, components=2)
    x = enumerate_examples(spec)
    n = 6000
    with torch.no_grad():
        log_prob = model.log_likelihood(Batch(x))
        # float64; the series of log1mexp is good to 1e-9 for each of up to 6 values.
        assert float(log_prob.exp().sum()) == pytest.approx(1, abs=2e-8)
        drawn = model.sample(n, generator=torch.Generator().manual_seed(0))
    place = spec.levels ** torch.arange(spec.dims - 1, -1, -1)
    counts = torch.bincount((drawn.long().flatten(1) * place).sum(1), minlength=len(x)).double()
    _check_chi_square(counts, log_prob.exp() * n)
    with pytest.raises(AssertionError):  # the test has the power to tell another model
        _check_chi_square(counts, log_prob.roll(1).exp() * n)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_sharpens_each_conditional(temperature):
    spec = Spec(shape=(2, 1, 2), levels=3)
    model = build(spec)
    x = enumerate_examples(spec)
    n = 5000
    with torch.no_grad():
        log_pmf = (model.conditionals(x).log_pmf() / temperature).log_softmax(-1)
        drawn = model.sample(n, temperature=temperature, generator=torch.Generator().manual_seed(0))
    log_prob = log_pmf.gather(-1, x.long().unsqueeze(-1)).flatten(1).sum(1)
    counts = torch.bincount(
        (drawn.long().flatten(1) * 3 ** torch.arange(3, -1, -1)).sum(1), minlength=81
    ).double()
    _check_chi_square(counts, log_prob.exp() * n)


def test_cold_samples_are_the_likeliest_at_every_step():
    spec = Spec(shape=(2, 2, 3), levels=3)
    model = build(spec)
    x = model.sample(4, temperature=1e-9)
    with torch.no_grad():
        assert torch.equal(model.conditionals(x).log_pmf().argmax(-1), x.long())


def test_the_same_uniforms_give_the_same_tokens():
    spec = Spec(shape=(2, 3, 2), levels=4, classes=3)
    model = build(spec)
    labels = torch.tensor([0, 1, 2, 0])
    draw = lambda **kw: model.sample(4, labels, generator=torch.Generator().manual_seed(7), **kw)  # noqa: E731
    first = draw()
    torch.manual_seed(99)
    assert torch.equal(first, draw())
    # What was drawn is the inverse of the cumulative distributions at those uniforms, had the whole been
    # known at once.
    uniforms = torch.rand(4, 2, 3, 2, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        assert torch.equal(model.conditionals(first, labels).quantile(uniforms), first.long())
    # float32 rounds the probabilities to 1e-7: of 48 uniforms none falls that near to a boundary.
    assert torch.equal(first, model.float().sample(4, labels, generator=torch.Generator().manual_seed(7)))


def test_without_labels_the_model_is_the_even_mixture():
    spec = Spec(shape=(1, 2, 2), levels=3, classes=3)
    model = build(spec)
    x = enumerate_examples(spec)
    with torch.no_grad():
        given = torch.stack([model.log_likelihood(Batch(x, torch.full((len(x),), c))) for c in range(3)])
        torch.testing.assert_close(model.log_likelihood(Batch(x)).exp(), given.exp().mean(0))
        torch.testing.assert_close(given.exp().sum(1), torch.ones(3, dtype=torch.float64), rtol=0, atol=2e-8)
    assert (given[0] - given[1]).abs().max() > 0.1, "the class changes nothing"
    n = 3000
    drawn = model.sample(n, torch.ones(n, dtype=torch.int64), generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(
        (drawn.long().flatten(1) * 3 ** torch.arange(3, -1, -1)).sum(1), minlength=81
    ).double()
    _check_chi_square(counts, given[1].exp() * n)


def test_the_unconditional_model_of_labelled_data_ignores_labels():
    spec = Spec(shape=(1, 2, 2), levels=3, classes=3)
    model = build(spec, class_conditional=False)
    x = enumerate_examples(spec)
    with torch.no_grad():
        assert torch.equal(
            model.log_likelihood(Batch(x)),
            model.log_likelihood(Batch(x, torch.ones(len(x), dtype=torch.int64))),
        )


def test_loss_is_the_mean_in_bits_per_dim():
    spec = Spec(shape=(1, 2, 3), levels=3)
    model = build(spec)
    x = enumerate_examples(spec)[::50]
    loss = model.loss(Batch(x), "training", PROGRESS)
    expected = -model.log_likelihood(Batch(x)).mean() / (6 * math.log(2))
    torch.testing.assert_close(loss.total, expected)
    torch.testing.assert_close(loss.terms["bits_per_dim"], expected.detach())
    torch.testing.assert_close(model.loss(Batch(x.repeat(3, 1, 1, 1)), "training", PROGRESS).total, expected)


def test_learning_the_data_reaches_their_entropy():
    """Four equally likely pictures cost 2 bits: what a correct factorization can reach and a leaking one
    undercuts."""
    spec = Spec(shape=(2, 2, 2), levels=2)
    x = torch.randint(2, (4, 2, 2, 2), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    assert len(x.unique(dim=0)) == 4
    torch.manual_seed(0)
    model = GatedPixelCNN(GatedPixelCNN.Config(width=16, layers=2, head=16), spec)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        loss = model.loss(Batch(x), "training", PROGRESS).total
        loss.backward()
        optimizer.step()
    bits = loss.item() * spec.dims
    assert 2 - 1e-4 <= bits <= 2.05


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (Spec(shape=(1, 7)), {}, r"expected images or code maps \(C, H, W\), got shape \(1, 7\)"),
        (Spec(shape=(1, 4, 4)), {"kernel": 4}, "expected an odd kernel of at least 3, got 4"),
        (Spec(shape=(9, 4, 4)), {"width": 8}, "expected a width of at least the 9 channels"),
        (
            Spec(shape=(1, 4, 4), domain="codes"),
            {"likelihood": "logistic-mixture"},
            "expected a categorical likelihood for code indices",
        ),
    ],
)
def test_what_cannot_be_built(spec, options, message):
    with pytest.raises(UserError, match=message):
        GatedPixelCNN(GatedPixelCNN.Config(**options), spec)


@pytest.mark.parametrize("recipe", GatedPixelCNN.recipes)
def test_recipes_can_be_built(recipe):
    with torch.device("meta"):
        model = GatedPixelCNN(GatedPixelCNN.recipes[recipe].model, Spec(shape=(3, 32, 32)))
        x = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
        assert model.log_likelihood(Batch(x)).shape == (2,)
