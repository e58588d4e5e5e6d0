"""Every factorized model: it sees exactly its declared past, and streams what the full pass computes, from
its one implementation."""

import dataclasses
import itertools
import math

import pytest
import torch

from ancestral.batch import Batch
from ancestral.errors import UserError
from ancestral.evaluation.certificate import certify
from ancestral.model import Sampling
from ancestral.models.autoregressive.base import Autoregressive
from ancestral.spec import Spec
from ancestral.stages import Progress, initialize
from ancestral.taxonomy import TAXONOMY, model_class

MODELS = {row.name: model_class(row.name) for row in TAXONOMY if row.representation == "autoregressive"}
VARIANTS = {
    **{name: (name, {}) for name in MODELS},
    "row-lstm": ("pixelrnn", {"layer": "row-lstm"}),
    "dilated": ("gated-pixelcnn", {"dilations": (1, 2), "kernel": 5}),
    "two resolutions down": ("pixelcnnpp", {"levels": 3, "weight_norm": False}),
    "kernel 5": ("pixelsnail", {"kernel": 5, "attention_every": 2}),
    "no attention": ("pixelsnail", {"attention_every": 0}),
    "learned positions": ("transformer", {"positions": "learned"}),
    "wavenet, kernel 3": ("wavenet", {"kernel": 3, "cycles": 2}),
    "wavenet, images": ("wavenet", {"layers": 3}),
}
CONTEXT = Spec(shape=(1, 2, 2), levels=3, domain="codes")
SPECS = {
    "gray": (Spec(shape=(1, 5, 7), levels=6, classes=3, contexts=(CONTEXT,)), {}),
    "RGB": (Spec(shape=(3, 4, 3), levels=6, classes=3), {}),
    "two code maps": (
        Spec(shape=(2, 3, 4), levels=7, domain="codes", contexts=(Spec(shape=(2, 3, 4), levels=None),)),
        {},
    ),
    "mixture": (Spec(shape=(1, 4, 6), levels=20), {"likelihood": "logistic-mixture", "components": 2}),
    "coupled": (
        Spec(shape=(3, 3, 4), levels=20, classes=2),
        {"likelihood": "coupled-logistic-mixture", "components": 2},
    ),
}
PROGRESS = Progress.at(0, 1)
CASES = list(itertools.product(VARIANTS, SPECS))


def as_sequence(spec, steps, contexts=()):
    domain = "codes" if spec.domain == "codes" else "sound"
    return dataclasses.replace(spec, shape=(spec.shape[0], steps), domain=domain, contexts=tuple(contexts))


def build(variant, name, seed=0, **more) -> Autoregressive:
    model_name, options = VARIANTS[variant]
    spec, likelihood = SPECS[name]
    cls = MODELS[model_name]
    if cls.dims == 1 and variant != "wavenet, images":
        spec = as_sequence(spec, 19, [as_sequence(context, 3) for context in spec.contexts])
    torch.manual_seed(seed)
    model = cls(dataclasses.replace(cls.Config.tiny(), **(likelihood | options | more)), spec).double().eval()
    with torch.no_grad():
        for p in model.parameters():  # nobody's initial values
            p.add_(0.2 * torch.randn_like(p))
    return model


def given(model, n, seed=1):
    """Labels and contexts of ``n`` examples, for ``conditionals`` and ``stream``."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % model.spec.classes if model.spec.classes else None
    return labels, tuple(
        torch.randn(n, *context.shape, generator=generator, dtype=torch.float64)
        if context.levels is None
        else torch.randint(context.levels, (n, *context.shape), generator=generator)
        for context in model.spec.contexts
    )


def noise(model, n, seed=0, dtype=torch.float64):
    return torch.rand(n, *model.spec.shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(("variant", "name"), CASES)
def test_sees_exactly_the_declared_past(variant, name):
    for trials in (1, 3, 10):
        certificate = certify(build(variant, name), trials=trials)
        if not len(certificate.blind):  # tiny layers: dead units look like blind spots
            break
    assert certificate.ok, str(certificate)


@pytest.mark.parametrize(("variant", "name"), CASES)
def test_streaming_is_the_full_pass(variant, name):
    model = build(variant, name)
    n = 3
    labels, contexts = given(model, n)
    uniforms = noise(model, n, seed=2)
    x = model.quantile(uniforms, labels, contexts=contexts).long()
    # Ancestral sampling makes a full pass for each value. Where each sees its past alone, one pass over what
    # was drawn says the same of all of them: the first is that of its noise, so the second, and so on.
    with torch.no_grad():
        expected = model.conditionals(x, labels, contexts).quantile(uniforms)
    assert torch.equal(x, expected), "other tokens for the same noise"
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        model = model.to(dtype)
        conditions = [context.to(dtype) if context.is_floating_point() else context for context in contexts]
        with torch.no_grad():
            whole = model.conditionals(x, labels, conditions).log_pmf()
        stream = model.stream(n, labels, conditions)
        while (index := stream.index) is not None:
            place = (slice(None), *index)
            here = stream.conditional().log_pmf()
            # Relative to log-probabilities of a few nats up to a few hundred; levels rarer than e^-30 lose
            # digits to cancellation.
            likely = whole[place] > -30
            torch.testing.assert_close(here[likely], whole[place][likely], rtol=tolerance, atol=tolerance)
            stream.push(x[place])
        assert torch.equal(stream.x, x)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_may_be_repeated(variant):
    """With channels in order, each position is visited once for each channel; only the last visit counts."""
    model = build(variant, "RGB")
    labels, contexts = given(model, 2)
    first, second = model.stream(2, labels, contexts), model.stream(2, labels, contexts)
    generator = torch.Generator().manual_seed(0)
    while (index := first.index) is not None:
        if index[0]:  # look again at what was there before the value was known
            second._conditional = None
        assert torch.equal(first.conditional().log_pmf(), second.conditional().log_pmf())
        values = torch.randint(6, (2,), generator=generator)
        first.push(values)
        second.push(values)


@pytest.mark.parametrize("variant", VARIANTS)
def test_completion_keeps_what_is_known(variant):
    model = build(variant, "gray")
    n = 4
    labels, contexts = given(model, n)
    uniforms = noise(model, n)
    free = model.quantile(uniforms, labels, contexts=contexts)
    # A prefix that the model itself drew changes nothing.
    known = torch.zeros(model.spec.shape, dtype=torch.bool)
    known.view(-1)[: model.spec.dims // 2] = True
    draw = lambda x, known: model.quantile(uniforms, labels, contexts=contexts, x=x, known=known)  # noqa: E731
    assert torch.equal(draw(free, known), free)
    # Of other examples, what is known stays, and what comes before it is drawn as if it were not there.
    other = ((free.long() + 1) % model.spec.levels).to(free.dtype)
    hole = torch.ones(model.spec.shape, dtype=torch.bool)
    hole.view(-1)[model.spec.dims // 3 : model.spec.dims // 2] = False
    completed = draw(other, hole)
    assert torch.equal(completed[:, hole], other[:, hole])
    assert torch.equal(draw(other, ~known)[:, known], free[:, known])
    # What is drawn in the hole follows its conditionals given everything before.
    with torch.no_grad():
        expected = model.conditionals(completed.long(), labels, contexts).quantile(uniforms)
    assert torch.equal(completed[:, ~hole].long(), expected[:, ~hole])


def test_completion_stops_where_nothing_is_left_to_draw(monkeypatch):
    model = build("pixelcnn", "mixture")
    visited = []
    positions = model.positions
    monkeypatch.setattr(
        model, "positions", lambda *arguments: visited.append(arguments[-1].index) or positions(*arguments)
    )
    known = torch.ones(model.spec.shape, dtype=torch.bool)
    known[:, 1, 2] = False
    x = torch.randint(20, (2, *model.spec.shape))
    completed = model.complete(x, known)
    assert visited == list(range(1 * 6 + 2 + 1))
    assert torch.equal(completed[:, known], x[:, known])
    assert torch.equal(model.complete(x, torch.ones_like(known)), x)


@pytest.mark.parametrize("variant", ["pixelcnnpp", "pixelsnail", "transformer", "wavenet"])
def test_channels_of_a_position_share_one_pass_through_the_trunk(variant, monkeypatch):
    model = build(variant, "RGB")
    visited = []
    trunk = model.trunk
    monkeypatch.setattr(
        model, "trunk", lambda *arguments: visited.append(arguments[-1].index) or trunk(*arguments)
    )
    model.sample(2, torch.tensor([0, 1]))
    assert visited == list(range(model.grid[0] * model.grid[1]))


@pytest.mark.parametrize("variant", ["pixelcnn", "wavenet"])
def test_progress_is_told_on_the_way(variant):
    told = []
    build(variant, "mixture").sample(2, progress=told.append)
    assert len(told) > 10
    assert told == sorted(told)
    assert told[-1] == 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_labels_of_any_integers(dtype):
    model = build("pixelcnn", "RGB")
    model.sample(2, torch.tensor([0, 2], dtype=dtype))


@pytest.mark.parametrize("variant", ["gated-pixelcnn", "pixelsnail"])
def test_half_precision_does_not_round_the_output(variant):
    """An 8-bit mantissa would move the location of a logistic by half a level."""
    model = build(variant, "mixture").float()
    x = torch.randint(20, (2, *model.spec.shape))
    with torch.autocast("cpu", torch.bfloat16):
        conditionals = model.conditionals(x)
    assert conditionals.loc.dtype == torch.float32
    assert not torch.equal(conditionals.loc, conditionals.loc.bfloat16().float())


def test_classes_in_one_batch_are_those_of_each():
    model = build("gated-pixelcnn", "gray")
    labels, contexts = given(model, 3)
    uniforms = noise(model, 3)
    together = model.quantile(uniforms, labels, contexts=contexts)
    alone = [
        model.quantile(
            uniforms[i : i + 1], labels[i : i + 1], contexts=[context[i : i + 1] for context in contexts]
        )
        for i in range(3)
    ]
    assert torch.equal(together, torch.cat(alone))


def test_the_context_matters_where_it_stands():
    model = build("gated-pixelcnn", "gray", layers=1)
    labels, contexts = given(model, 1)
    changed = (contexts[0].clone(),)
    changed[0][0, 0, 1, 1] = (changed[0][0, 0, 1, 1] + 1) % 3
    x = torch.zeros(1, *model.spec.shape, dtype=torch.int64)
    with torch.no_grad():
        moved = (
            (
                model.conditionals(x, labels, contexts).log_pmf()
                - model.conditionals(x, labels, changed).log_pmf()
            )
            .abs()
            .sum(-1)
        )
    assert float(moved[0, 0, -1, -1]) > 1e-6


COARSE = Spec(shape=(1, 2, 2), levels=3, domain="codes")
FINE = Spec(shape=(2, 4, 4), levels=None)


def with_two_contexts(variant):
    """A class-conditional model of 8x8 codes (or 16 steps) that sees a coarse map of codes and a finer one of
    real numbers."""
    model_name, options = VARIANTS[variant]
    cls = MODELS[model_name]
    spec = Spec(shape=(1, 8, 8), levels=5, classes=2, domain="codes", contexts=(COARSE, FINE))
    if cls.dims == 1 and variant != "wavenet, images":
        spec = as_sequence(spec, 16, (as_sequence(COARSE, 2), as_sequence(FINE, 4)))
    torch.manual_seed(0)
    return cls(dataclasses.replace(cls.Config.tiny(), **options), spec).double().eval()


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_contexts_of_two_resolutions_are_seen(variant):
    model = with_two_contexts(variant)
    n = 2
    labels, (coarse, fine) = given(model, n)
    uniforms = noise(model, n)
    x = model.quantile(uniforms, labels, contexts=(coarse, fine)).long()
    # By a full pass: what is streamed is what the whole map gives, with both contexts.
    with torch.no_grad():
        whole = model.conditionals(x, labels, (coarse, fine)).log_pmf()
    stream = model.stream(n, labels, (coarse, fine))
    while (index := stream.index) is not None:
        place = (slice(None), *index)
        torch.testing.assert_close(stream.conditional().log_pmf(), whole[place], rtol=1e-12, atol=1e-12)
        stream.push(x[place])
    # By gradients, every number of the finer one; by changes, every code of the coarse one.
    leaf = fine.clone().requires_grad_()
    model.log_likelihood(Batch(x, labels, (coarse, leaf))).sum().backward()
    assert bool((leaf.grad != 0).all())
    for i in range(coarse[0].numel()):
        other = coarse.clone().view(n, -1)
        other[:, i] = (other[:, i] + 1) % 3
        with torch.no_grad():
            changed = model.conditionals(x, labels, (other.view_as(coarse), fine)).log_pmf()
        assert float((changed - whole).abs().max()) > 1e-6
    # One does not stand for the other: without its own, a model refuses to run.
    for contexts in ((), (coarse,), (fine, coarse)):
        for run in (model.conditionals, lambda x, labels, contexts: model.stream(n, labels, contexts)):
            with pytest.raises(UserError, match=r"expected (2 |)(contexts|examples of shape|integers)"):
                run(x, labels, contexts)


def test_each_context_is_repeated_from_its_own_resolution():
    """A code of the coarse map stands for 4x4 positions, a number of the finer one for 2x2."""
    model = with_two_contexts("gated-pixelcnn")
    _, (coarse, fine) = given(model, 1)
    encoder, finer = model.conditioner.encoders
    with torch.no_grad():
        features = model.condition(torch.tensor([1]), (coarse, fine))
        expected = model.conditioner.classes(torch.tensor([1]))[:, :, None, None]
        for encode, context, times in ((encoder, coarse, 4), (finer, fine, 2)):
            encoded = encode(context, torch.float64)
            assert encoded.shape[2:] == context.shape[2:]
            expected = expected + encoded.repeat_interleave(times, 2).repeat_interleave(times, 3)
    torch.testing.assert_close(features, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("variant", ["gated-pixelcnn", "pixelcnnpp", "wavenet"])
def test_two_contexts_are_no_leak(variant):
    certificate = certify(with_two_contexts(variant), trials=1)
    assert certificate.causal, str(certificate)


def test_weights_changed_between_streams_are_seen():
    """Masked and normalized weights are prepared when a stream starts, so that a load or an average is never
    missed."""
    for variant in VARIANTS:
        model = build(variant, "mixture")
        uniforms = noise(model, 2)
        before = model.quantile(uniforms)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.5 * torch.randn_like(p))
        after = model.quantile(uniforms).long()
        with torch.no_grad():
            assert torch.equal(after, model.conditionals(after).quantile(uniforms)), variant
        assert not torch.equal(before.long(), after), variant


@pytest.mark.parametrize("name", MODELS)
def test_the_stream_adds_up_to_the_likelihood(name):
    """What a codec would pay for the values one after another is what ``log_likelihood`` says of the
    whole."""
    model = build(name, "gray")
    labels, contexts = given(model, 2)
    x = model.sample(2, labels, contexts=contexts)
    streamed, stream = torch.zeros(2, dtype=torch.float64), model.stream(2, labels, contexts)
    while (index := stream.index) is not None:
        value = x[(slice(None), *index)].long()
        streamed += stream.conditional().log_prob(value)
        stream.push(value)
    loss = model.log_likelihood(Batch(x, labels, contexts))
    torch.testing.assert_close(streamed, loss.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["gated-pixelcnn", "transformer"])
def test_a_compiled_network_streams_the_same_tokens(name):
    model = build(name, "gray")
    labels, contexts = given(model, 2)
    uniforms = noise(model, 2)
    plain = model.quantile(uniforms, labels, contexts=contexts)
    for part in ("rows", "positions"):
        setattr(model, part, torch.compile(getattr(model, part), backend="eager", dynamic=False))
    assert torch.equal(model.quantile(uniforms, labels, contexts=contexts), plain)
    torch.compiler.reset()


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_draws_from_its_own_stream(name):
    """In half precision a stream rounds otherwise than a full pass; what is drawn is drawn from what the
    stream said."""
    exact, model = build(name, "mixture"), build(name, "mixture").bfloat16()
    uniforms = noise(model, 2, dtype=torch.float32)
    x = model.quantile(uniforms).long()
    model.spec.check(x)
    stream, nats = model.stream(2), torch.zeros(2)
    while (index := stream.index) is not None:
        place = (slice(None), *index)
        assert torch.equal(stream.conditional().quantile(uniforms[place]), x[place])
        nats -= stream.conditional().log_prob(x[place]).float()
        stream.push(x[place])
    torch.testing.assert_close(nats, -exact.log_likelihood(Batch(x)).detach().float(), rtol=0.05, atol=0.5)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("options", [{"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.6, "temperature": 1.5}])
def test_sharpened_tokens_are_those_of_full_passes(name, options):
    model = build(name, "gray")
    labels, contexts = given(model, 2)
    uniforms = noise(model, 2)
    x = model.quantile(uniforms, labels, contexts=contexts, options=Sampling(**options)).long()
    with torch.no_grad():
        assert torch.equal(model.conditionals(x, labels, contexts).quantile(uniforms, **options), x)
    assert not torch.equal(model.quantile(uniforms, labels, contexts=contexts).long(), x)


@pytest.mark.parametrize("name", MODELS)
def test_conditions_matter_from_the_first_value_on(name):
    model = build(name, "gray")
    labels, contexts = given(model, 1)
    other = ((contexts[0] + 1) % 3,)
    x = torch.zeros(1, *model.spec.shape, dtype=torch.int64)
    with torch.no_grad():
        first, by_class, by_context = (
            model.conditionals(x, *condition).log_pmf().flatten(1, -2)[:, 0]
            for condition in ((labels, contexts), ((labels + 1) % 3, contexts), (labels, other))
        )
    assert float((first - by_class).abs().max()) > 1e-6
    assert float((first - by_context).abs().max()) > 1e-6


@pytest.mark.parametrize("name", MODELS)
def test_dropout_drops_in_training_alone(name):
    model = build(name, "mixture", dropout=0.5)
    x = torch.randint(20, (2, *model.spec.shape), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model.log_likelihood(Batch(x)), model.log_likelihood(Batch(x)))
        model.train()
        assert not torch.equal(model.log_likelihood(Batch(x)), model.log_likelihood(Batch(x)))
    with pytest.raises(
        UserError,
        match=r"expected a model in evaluation mode, got one in training mode; call model\.eval\(\) first",
    ):
        model.sample(2)


@pytest.mark.parametrize("name", ["pixelcnnpp", "pixelsnail"])
@pytest.mark.parametrize("labels", [torch.tensor([0, 1, 2, 0]), torch.zeros(4, dtype=torch.int64), None])
def test_weight_normalisation_starts_from_data(name, labels):
    """Each convolution gives mean 0 and a standard deviation of 1, of 0.1 where a block starts; also if all
    labels are the same."""
    torch.manual_seed(0)
    cls = MODELS[name]
    spec = Spec(shape=(1, 6, 6), levels=20, classes=3)
    model = cls(dataclasses.replace(cls.Config.tiny(), likelihood="logistic-mixture"), spec)
    batch = Batch(torch.randint(20, (4, *spec.shape)), labels)
    initialize(model, model.stages()[0], batch)
    first = model.loss(batch, "training", PROGRESS).total.detach()
    assert float(first) < 10
    found = {}
    for part, layer in model.named_modules():
        if hasattr(layer, "parametrizations"):
            layer.register_forward_hook(lambda _, __, output, part=part: found.setdefault(part, output))
    with torch.no_grad():
        assert float(model.log_likelihood(batch).mean()) == pytest.approx(
            -float(first) * spec.dims * math.log(2), rel=0.05
        )
    spreads = [
        float(output.std(dim=[0, *range(2, output.dim())], unbiased=False).median())
        for output in found.values()
    ]
    assert all(0.03 < spread < 1.6 for spread in spreads), spreads
    assert any(spread < 0.2 for spread in spreads)
    assert not any("condition" in part for part in found)

    weights = {key: value.clone() for key, value in model.state_dict().items()}
    again = cls(model.config, spec)
    again.load_state_dict(weights)
    for started in (model, again):  # not done again by a step, not after a load either
        started.loss(Batch(torch.zeros_like(batch.x), labels), "training", PROGRESS)
        assert all(torch.equal(value, weights[key]) for key, value in started.state_dict().items())


BAD_SAMPLES = [
    ({"temperature": 0.0}, "expected temperature above 0, got 0.0"),
    ({"temperature": float("nan")}, "expected temperature above 0, got nan"),
    ({"top_k": 7}, "expected top-k of 1..6, got 7"),
    ({"top_k": 0}, "expected top_k of at least 1, got 0"),
    ({"top_p": 0.0}, r"expected top_p in \(0, 1\], got 0.0"),
    ({"top_p": 1.5}, r"expected top_p in \(0, 1\], got 1.5"),
    ({"truncation": 0.5}, "expected no truncation, got one: GatedPixelCNN takes temperature, top-k, top-p"),
    ({"labels": torch.tensor([0, 3])}, "expected labels 0..2, got 0..3"),
    ({"labels": torch.tensor([0])}, "expected 2 labels"),
    ({"contexts": ()}, "expected 1 contexts, got 0"),
    (
        {"contexts": [torch.zeros(2, 1, 3, 2, dtype=torch.int64)]},
        r"expected examples of shape \(1, 2, 2\), got \(1, 3, 2\) as context 0",
    ),
    ({"contexts": [torch.full((2, 1, 2, 2), 3)]}, "expected values 0..2, got 3 as context 0;"),
    (
        {"contexts": [torch.zeros(1, 1, 2, 2, dtype=torch.int64)]},
        "expected 2 examples of context 0, got 1",
    ),
]
BAD_NOISE = [
    ({"uniforms": torch.rand(2, 1, 5, 5)}, r"expected noise of shape \(2, 1, 5, 7\), got \(2, 1, 5, 5\)"),
    ({"uniforms": torch.tensor(0.5)}, r"expected noise of shape \(1, 5, 7\), got \(\)"),
    ({"uniforms": torch.ones(2, 1, 5, 7)}, r"expected noise in \[0, 1\), got numbers outside it, or NaN"),
    (
        {"uniforms": torch.full((2, 1, 5, 7), float("nan"))},
        r"expected noise in \[0, 1\), got numbers outside it, or NaN",
    ),
    ({"labels": None}, "expected labels for a class-conditional model, got none"),
    ({"options": Sampling(top_k=7)}, "expected top-k of 1..6, got 7"),
    ({"x": torch.zeros(2, 1, 5, 7, dtype=torch.int64)}, "expected x and known together"),
    (
        {"x": torch.zeros(3, 1, 5, 7, dtype=torch.int64), "known": torch.ones(1, dtype=torch.bool)},
        "expected 2 examples to complete, got 3",
    ),
]
BAD_COMPLETIONS = [
    (
        {"x": torch.zeros(2, 1, 5, 6, dtype=torch.int64)},
        r"expected examples of shape \(1, 5, 7\), got \(1, 5, 6\)",
    ),
    ({"x": torch.full((2, 1, 5, 7), 6)}, "expected values 0..5, got 6;"),
    ({"known": torch.ones(5, 5, dtype=torch.bool)}, r"expected a mask of shape \(2, 1, 5, 7\), got \(5, 5\)"),
    ({"known": torch.ones(5, 7)}, "expected a boolean mask"),
]
ZEROS = torch.zeros(2, 1, 2, 2, dtype=torch.int64)


@pytest.mark.parametrize(("options", "message"), BAD_SAMPLES)
def test_bad_sampling_arguments_are_one_line_errors(options, message):
    model = build("gated-pixelcnn", "gray")
    with pytest.raises(UserError, match=message):
        model.sample(2, **({"contexts": [ZEROS]} | options))


@pytest.mark.parametrize(("options", "message"), BAD_NOISE)
def test_bad_noise_is_a_one_line_error(options, message):
    model = build("gated-pixelcnn", "gray")
    given = {"uniforms": torch.rand(2, 1, 5, 7), "labels": torch.tensor([0, 1]), "contexts": [ZEROS]}
    with pytest.raises(UserError, match=message):
        model.quantile(**(given | options))


@pytest.mark.parametrize(("options", "message"), BAD_COMPLETIONS)
def test_bad_completions_are_one_line_errors(options, message):
    model = build("gated-pixelcnn", "gray")
    given = {"x": torch.zeros(2, 1, 5, 7, dtype=torch.int64), "known": torch.ones(1, dtype=torch.bool)}
    labels = torch.tensor([0, 1])
    with pytest.raises(UserError, match=message):
        model.complete(**(given | options), contexts=[ZEROS])
    with pytest.raises(UserError, match=message):
        model.quantile(torch.rand(2, 1, 5, 7), labels, contexts=[ZEROS], **(given | options))


def test_bad_streams_are_one_line_errors():
    model = build("gated-pixelcnn", "RGB")
    with pytest.raises(UserError, match="expected labels for a class-conditional model, got none"):
        model.stream(2)
    with pytest.raises(UserError, match="expected at least 1 example, got 0"):
        model.stream(0)
    stream = model.stream(2, torch.tensor([0, 1]))
    for values, message in [
        (torch.zeros(3, dtype=torch.int64), r"expected 2 values for this stream, got shape \(3,\)"),
        (torch.tensor([0, 6]), "expected values 0..5, got 0..6"),
        (torch.tensor([0.5, 1.0]), r"expected integers 0\.\.5 as values, got torch.float32"),
    ]:
        with pytest.raises(UserError, match=message):
            stream.push(values)
    for _ in range(model.spec.dims):
        stream.push(torch.zeros(2, dtype=torch.int64))
    for late in (stream.conditional, lambda: stream.push(torch.zeros(2, dtype=torch.int64))):
        with pytest.raises(UserError, match="got the end of the stream"):
            late()


@pytest.mark.parametrize("name", MODELS)
def test_the_likelihood_is_exact(name):
    model = build(name, "gray")
    labels, contexts = given(model, 2)
    assert model.likelihood == "exact"
    x = torch.zeros(2, *model.spec.shape, dtype=torch.int64)
    for k, message in ((0, "expected at least 1 importance sample"), (2, "whose likelihood is exact")):
        with pytest.raises(UserError, match=message):
            model.log_likelihood(Batch(x, labels, contexts), k)
    assert model.Config.kind == name


@pytest.mark.parametrize("name", MODELS)
def test_sampling_is_the_quantile_of_the_generators_numbers(name):
    """Classes are drawn first, then a number for each value."""
    model = build(name, "gray").float()
    _, contexts = given(model, 3)
    generator = torch.Generator().manual_seed(4)
    labels = torch.randint(3, (3,), generator=generator)
    uniforms = torch.rand(3, *model.spec.shape, generator=generator)
    x = model.sample(3, contexts=contexts, generator=torch.Generator().manual_seed(4))
    assert torch.equal(x, model.quantile(uniforms, labels, contexts=contexts))
    known = torch.rand(model.spec.shape, generator=generator) < 0.5
    other = torch.randint(6, x.shape, generator=generator)
    filled = model.complete(other, known, contexts=contexts, generator=torch.Generator().manual_seed(4))
    assert torch.equal(filled, model.quantile(uniforms, labels, contexts=contexts, x=other, known=known))


@pytest.mark.parametrize("name", MODELS)
def test_what_cannot_be_built(name):
    cls = MODELS[name]
    wrong = Spec(shape=(16,)) if cls.dims == 1 or cls.sequences else Spec(shape=(1, 16))
    with pytest.raises(UserError, match="expected images or code maps"):
        cls(cls.Config.tiny(), wrong)
    for shape in ((3,), (1, 16), (1, 4, 4)):
        with pytest.raises(UserError, match="expected data with a number of levels, got continuous data"):
            cls(cls.Config.tiny(), Spec(shape=shape, levels=None))
    with pytest.raises(UserError, match=r"expected a context \(C, H, W\) or \(C, T\), got shape \(3,\)"):
        cls(cls.Config.tiny(), Spec(shape=(1, 4, 4), levels=5, contexts=(Spec(shape=(3,)),)))
    spec = Spec(shape=(1, 16) if cls.dims == 1 else (1, 4, 4), levels=5, domain="codes")
    with pytest.raises(UserError, match="expected a categorical likelihood for code indices"):
        cls(dataclasses.replace(cls.Config.tiny(), likelihood="logistic-mixture"), spec)
    for field, value in (("dropout", 1.0), ("condition_width", 0), ("components", 0)):
        with pytest.raises(UserError):
            dataclasses.replace(cls.Config.tiny(), **{field: value})


@pytest.mark.parametrize(
    ("name", "recipe"), [(name, recipe) for name, cls in MODELS.items() for recipe in cls.recipes]
)
def test_recipes_can_be_built(name, recipe):
    cls = MODELS[name]
    spec = Spec(shape=(1, 512), classes=3) if cls.dims == 1 else Spec(shape=(3, 8, 8), classes=3)
    with torch.device("meta"):
        model = cls(cls.recipes[recipe].model, spec)
        x = torch.zeros(2, *spec.shape, dtype=torch.uint8)
        assert model.log_likelihood(Batch(x, torch.zeros(2, dtype=torch.int64))).shape == (2,)


@pytest.mark.parametrize("shape", [(1, 1, 16), (1, 16, 1)])
@pytest.mark.parametrize("name", ["pixelcnnpp", "pixelsnail"])
def test_channels_without_variance_keep_their_gain(name, shape):
    """In a single row nothing comes from above: what is a constant there must not be scaled up to a variance
    of 1."""
    torch.manual_seed(0)
    model = MODELS[name](MODELS[name].Config.tiny(), Spec(shape=shape, levels=6))
    gains = {
        key: value.clone() for key, value in model.state_dict().items() if key.endswith("weight.original0")
    }
    initialize(model, model.stages()[0], Batch(torch.randint(6, (8, *shape))))
    assert all(float((model.state_dict()[key] / value).abs().max()) < 200 for key, value in gains.items())
