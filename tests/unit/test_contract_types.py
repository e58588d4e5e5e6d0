"""What data, training, evaluation and models hand to each other: batches, specs, progress, stages."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from ancestral.batch import Batch
from ancestral.configuration import from_json, to_json
from ancestral.errors import UserError
from ancestral.spec import Spec
from ancestral.stages import Phase, Progress, Stage, initialize, owned

NAN, INFINITY = float("nan"), float("inf")


def full(n=4):
    """A batch that has everything."""
    x = torch.arange(n * 6).view(n, 1, 2, 3)
    return Batch(x, labels=torch.arange(n) % 3, contexts=(x[..., :1] * 10, x.float() / 7))


def same(a, b):
    assert a.tensors().keys() == b.tensors().keys()
    for name, tensor in a.tensors().items():
        assert tensor.dtype == b.tensors()[name].dtype, name
        assert torch.equal(tensor, b.tensors()[name]), name


# Batch


def test_a_batch_is_its_tensors_by_name():
    batch = full()
    assert list(batch.tensors()) == ["x", "labels", "contexts.0", "contexts.1"]
    assert batch.tensors()["contexts.1"] is batch.contexts[1]
    assert list(Batch(batch.x).tensors()) == ["x"]
    assert list(Batch(batch.x, contexts=batch.contexts).tensors()) == ["x", "contexts.0", "contexts.1"]
    for some in (batch, Batch(batch.x), Batch(batch.x, batch.labels), Batch(batch.x, None, batch.contexts)):
        again = Batch.of(some.tensors())
        same(again, some)
        assert (again.labels is None) == (some.labels is None)
        assert len(again.contexts) == len(some.contexts)
    shuffled = dict(reversed(batch.tensors().items()))
    same(Batch.of(shuffled), batch)


@pytest.mark.parametrize("name", ["lables", "context", "contexts", "contexts.3", "contexts.x"])
def test_a_name_that_no_batch_has_is_a_key_error(name):
    with pytest.raises(KeyError):
        Batch.of(full().tensors() | {name: torch.zeros(4)})


def test_a_context_that_is_missing_is_a_key_error():
    tensors = full().tensors()
    del tensors["contexts.0"]
    with pytest.raises(KeyError):
        Batch.of(tensors)
    with pytest.raises((KeyError, TypeError)):
        Batch.of({"labels": torch.zeros(4)})


@pytest.mark.parametrize(
    "index",
    [slice(1, 3), slice(None, None, 2), torch.tensor([3, 0, 0]), torch.tensor([True, False, True, False])],
)
def test_indexing_takes_the_same_examples_of_everything(index):
    batch = full()
    some = batch[index]
    assert torch.equal(some.x, batch.x[index])
    assert torch.equal(some.labels, batch.labels[index])
    assert torch.equal(some.contexts[0], batch.contexts[0][index])
    assert torch.equal(some.contexts[1], batch.contexts[1][index])
    assert len(some) == len(batch.x[index])
    assert Batch(batch.x)[index].labels is None
    assert Batch(batch.x)[index].contexts == ()


def test_a_map_reaches_everything():
    batch, seen = full(), []
    mapped = batch.map(lambda tensor: seen.append(tensor.shape) or tensor.double() + 1)
    assert seen == [tensor.shape for tensor in batch.tensors().values()]
    for name, tensor in mapped.tensors().items():
        assert torch.equal(tensor, batch.tensors()[name].double() + 1)
    for tensor in batch.to("meta").tensors().values():
        assert tensor.device.type == "meta"
    same(batch.to("cpu", non_blocking=True), batch)


@pytest.mark.parametrize(("n", "expected"), [(3, [0, 3, 6]), (4, [0, 2, 5, 7]), (20, list(range(10)))])
def test_some_examples_are_from_all_of_them(n, expected):
    batch = Batch(torch.arange(10), labels=torch.arange(10) + 1)
    assert batch.some(n).x.tolist() == expected
    assert batch.some(n).labels.tolist() == [i + 1 for i in expected]


def test_batches_one_after_another_keep_what_all_have():
    batch = full(5)
    same(Batch.cat([batch[:2], batch[2:3], batch[3:]]), batch)
    same(Batch.cat(part for part in [batch]), batch)
    unlabeled = Batch(batch.x, contexts=batch.contexts)
    joined = Batch.cat([batch, unlabeled])
    assert joined.labels is None
    assert torch.equal(joined.contexts[1], torch.cat([batch.contexts[1]] * 2))
    assert Batch.cat([batch, Batch(batch.x, batch.labels)]).contexts == ()


# Spec


@pytest.mark.parametrize(
    ("shape", "domain"), [((7,), "table"), ((1, 16), "sound"), ((3, 4, 4), "image"), ((2, 3, 4), "image")]
)
def test_the_shape_says_the_domain(shape, domain):
    assert Spec(shape=shape).domain == domain
    assert Spec(shape=shape, domain=domain) == Spec(shape=shape)
    assert Spec(shape=shape).ordered
    codes = Spec(shape=shape, domain="codes")
    assert codes != Spec(shape=shape)
    assert not codes.ordered


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (1, 4)}, r"expected \(C, H, W\) for the domain image, got \(1, 4\); mend shape or domain"),
        ({"shape": (4,)}, r"expected \(C, H, W\) for the domain image, got \(4,\)"),
        ({"shape": (1, 4, 4), "domain": "sound"}, r"expected \(C, T\) for the domain sound, got \(1, 4, 4\)"),
        ({"shape": (1, 4), "domain": "table"}, r"expected \(D,\) for the domain table, got \(1, 4\)"),
        ({"domain": "music"}, "expected one of the domains image, sound, table, codes for the domain music"),
        (
            {"shape": (1, 2, 3, 4), "domain": None},
            r"expected a shape of 1 to 3 sizes, got \(1, 2, 3, 4\); say",
        ),
        ({"shape": ()}, r"expected a shape of positive sizes, got \(\)"),
        ({"shape": (1, 0, 4)}, r"expected a shape of positive sizes, got \(1, 0, 4\)"),
        (
            {"rate": 16_000},
            "expected a rate and an encoding of sound alone, got them of image; leave them out",
        ),
        ({"encoding": "mu-law"}, "expected a rate and an encoding of sound alone, got them of image"),
        ({"levels": 1}, "expected at least 2 levels, got 1"),
        ({"classes": -1}, "expected 0 or more classes, got -1"),
    ],
)
def test_what_no_example_can_be(options, message):
    with pytest.raises(UserError, match=message):
        Spec(**{"shape": (1, 4, 4), "domain": "image"} | options)


def test_codes_may_have_any_shape():
    for shape in ((4,), (1, 4), (2, 4, 4), (1, 2, 2, 2)):
        assert Spec(shape=shape, domain="codes").dims == math.prod(shape)


def test_a_sound_has_a_rate_and_an_encoding():
    spec = Spec(shape=(1, 8), rate=16_000, encoding="mu-law")
    assert (spec.domain, spec.rate, spec.encoding) == ("sound", 16_000, "mu-law")
    assert spec != Spec(shape=(1, 8))


@pytest.mark.parametrize(
    "spec",
    [
        Spec(shape=(1, 8), rate=16_000, encoding="linear"),
        Spec(shape=(7,), levels=None),
        Spec(
            shape=(1, 2, 2),
            levels=4,
            classes=3,
            domain="codes",
            contexts=(Spec(shape=(1, 1, 1), levels=4, domain="codes"), Spec(shape=(2, 2, 2), levels=None)),
        ),
    ],
)
def test_a_spec_survives_json_with_its_contexts(spec):
    again = from_json(Spec, json.loads(json.dumps(to_json(spec))))
    assert again == spec
    assert hash(again) == hash(spec)


@pytest.mark.parametrize(("value", "shown"), [(NAN, 2), (INFINITY, 2), (-INFINITY, 2)])
def test_continuous_data_are_finite(value, shown):
    spec = Spec(shape=(3,), levels=None)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    spec.check(x)
    x[1, 2] = x[4, 0] = value
    with pytest.raises(UserError, match=f"expected finite values, got NaN or infinity {shown} times; leave"):
        spec.check(x)
    with pytest.raises(UserError, match=r"expected floats as values, got torch\.int64; convert them"):
        spec.check(torch.zeros(2, 3, dtype=torch.int64))


def test_continuous_data_are_not_scaled():
    spec = Spec(shape=(3,), levels=None)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(spec.scale(x), x)
    assert torch.equal(spec.scale(x, torch.float64), x.double())
    assert spec.dtype == torch.float32
    for discrete in (lambda: spec.discrete_levels, lambda: spec.unscale(x)):
        with pytest.raises(UserError, match="expected data with a number of levels, got continuous data"):
            discrete()


@pytest.mark.parametrize(
    ("levels", "dtype"),
    [
        (2, torch.uint8),
        (256, torch.uint8),
        (257, torch.int16),
        (2**15, torch.int16),
        (2**15 + 1, torch.int32),
    ],
)
def test_levels_survive_scaling(levels, dtype):
    spec = Spec(shape=(1,), levels=levels)
    assert spec.dtype == dtype
    x = torch.tensor([[0], [1], [levels // 2], [levels - 1]]).to(dtype)
    spec.check(x)
    y = spec.scale(x)
    assert (float(y.min()), float(y.max())) == (-1.0, 1.0)
    assert torch.equal(spec.unscale(y), x)


CONDITIONAL = Spec(
    shape=(1, 2, 2),
    levels=4,
    classes=3,
    contexts=(Spec(shape=(1, 1, 1), levels=4, domain="codes"), Spec(shape=(2,), levels=None)),
)
X, LABELS = torch.zeros(2, 1, 2, 2, dtype=torch.int64), torch.tensor([0, 2])
COARSE, FEATURES = torch.full((2, 1, 1, 1), 3), torch.zeros(2, 2)


@pytest.mark.parametrize(
    ("labels", "contexts", "message"),
    [
        (LABELS, (COARSE,), "expected 2 contexts, got 1; give the model what it was trained on"),
        (LABELS, (), "expected 2 contexts, got 0"),
        (LABELS, (COARSE, FEATURES, FEATURES), "expected 2 contexts, got 3"),
        (LABELS, (FEATURES, COARSE), r"expected examples of shape \(1, 1, 1\), got \(2,\) as context 0"),
        (LABELS, (COARSE + 1, FEATURES), "expected values 0..3, got 4 as context 0"),
        (
            LABELS,
            (COARSE.float(), FEATURES),
            r"expected integers 0..3 as values, got torch\.float32 as context 0",
        ),
        (
            LABELS,
            (COARSE, FEATURES * NAN),
            "expected finite values, got NaN or infinity 4 times as context 1",
        ),
        (
            LABELS,
            (COARSE, FEATURES[:1]),
            "expected 2 examples of context 1, got 1; give one for each example",
        ),
        (LABELS[:1], None, r"expected 2 labels, got shape \(1,\)"),
        (LABELS + 1, None, "expected labels 0..2, got 1..3"),
    ],
)
def test_labels_and_contexts_that_do_not_fit(labels, contexts, message):
    CONDITIONAL.check(X, LABELS, (COARSE, FEATURES))
    CONDITIONAL.check(X, LABELS)
    CONDITIONAL.check(X)
    with pytest.raises(UserError, match=message):
        CONDITIONAL.check(X, labels, contexts)


def test_labels_of_data_without_classes():
    with pytest.raises(
        UserError, match="expected no labels, got some: the model was trained without classes"
    ):
        replace(CONDITIONAL, classes=0).check(X, LABELS)


# Progress


@pytest.mark.parametrize("start", [0, 7])
@pytest.mark.parametrize("length", [1, 3, 100])
def test_a_ramp_rises_linearly_and_stays(start, length):
    for step in (0, start, start + 1, start + length - 1, start + length, start + 10 * length):
        weight = Progress.at(step, 50).ramp(length, start)
        assert weight.shape == ()
        expected = min(1.0, max(0.0, (step - start) / length))
        torch.testing.assert_close(float(weight), expected, rtol=1e-6, atol=0)


def test_no_ramp_is_full_weight_from_the_first_step():
    for step in (0, 5):
        assert float(Progress.at(step, 50).ramp(0)) == 1
        assert float(Progress.at(step, 50).ramp(0, start=9)) == 1


def test_progress_stays_on_its_device():
    progress = Progress.at(3, 50, "meta")
    for weight in (progress.ramp(10), progress.ramp(0)):
        assert weight.device.type == "meta"


# Stages and phases


class Network(nn.Module):
    """Two parts that share a layer, a buffer that is saved and one that is not."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        shared = nn.Linear(3, 3)
        self.first = nn.Sequential(shared, nn.BatchNorm1d(3))
        self.second = nn.Sequential(nn.Linear(3, 3), shared)
        self.loose = nn.Parameter(torch.zeros(2))
        self.register_buffer("kept", torch.zeros(1))
        self.register_buffer("passing", torch.zeros(1), persistent=False)


def test_a_phase_trains_each_parameter_once():
    network = Network()
    phase = Phase("both", (network.first, network.second, network.first))
    assert len(phase.parameters) == 6
    assert {id(p) for p in phase.parameters} == {id(p) for p in network.parameters()} - {id(network.loose)}
    stage = Stage("stage", (Phase("a", (network.first,)), Phase("b", (network.second, network.first))))
    assert stage.modules == (network.first, network.second)


def test_what_modules_own_is_named_as_in_the_state():
    network = Network()
    shared = {"first.0.weight", "first.0.bias", "second.1.weight", "second.1.bias"}
    first = owned(network, (network.first,))
    norm = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    assert first == shared | {f"first.1.{name}" for name in norm}
    assert owned(network, (network.second,)) == shared | {"second.0.weight", "second.0.bias"}
    assert owned(network, (network,)) == network.state_dict().keys()
    assert "passing" not in owned(network, (network,))
    assert owned(network, ()) == set()


def test_only_what_initialize_sets_has_changed_afterwards():
    """As weight normalization does: a scale from the data, where batch normalization must not count them."""
    network, seen = Network().eval(), []
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batch = Batch(torch.randn(16, 3, generator=torch.Generator().manual_seed(1)) * 5 + 2)

    def scale(given):
        seen.append((network.training, torch.is_grad_enabled(), given))
        output = network.first(given.x)
        network.kept.copy_(output.std())
        network.second[0].weight.div_(output.std())

    initialize(network, Stage("stage", (Phase("phase", (network,)),), initialize=scale), batch)
    assert seen == [(True, False, batch)]
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"kept", "second.0.weight"}
    assert network.first[1].num_batches_tracked == 0
    initialize(network, Stage("stage", (Phase("phase", (network,)),)), batch)
    assert len(seen) == 1
