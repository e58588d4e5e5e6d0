"""The compiled loop of WaveNet draws what its stream draws, at every setting of both."""

import builtins
import dataclasses
import math
import os
import subprocess
import sys

import pytest
import torch

from ancestral.errors import UserError
from ancestral.models.autoregressive import wavenet, wavenet_stream
from ancestral.models.autoregressive.wavenet import WaveNet
from ancestral.sampling import PLAIN, Sampling
from ancestral.spec import Spec

pytest.importorskip("numba")

STEPS = 40
SOUND = Spec(shape=(1, STEPS), levels=11)
MIXTURE = {"likelihood": "logistic-mixture", "components": 3}
CASES = {
    "kernel 2": (SOUND, {}, PLAIN),
    "kernel 3, classes": (dataclasses.replace(SOUND, classes=3), {"kernel": 3, "cycles": 2}, PLAIN),
    "a ring longer than the sequence": (SOUND, {"layers": 7}, PLAIN),
    "widths that are no multiples of 4": (SOUND, {"width": 5, "gate_width": 3, "skip_width": 9}, PLAIN),
    "local context": (
        dataclasses.replace(SOUND, classes=2, contexts=(Spec(shape=(2, 5), levels=4, domain="codes"),)),
        {"kernel": 3},
        PLAIN,
    ),
    "a map of codes": (Spec(shape=(1, 5, 8), levels=9, domain="codes"), {}, PLAIN),
    "temperature": (SOUND, {}, Sampling(temperature=0.6)),
    "top-k": (SOUND, {}, Sampling(top_k=4)),
    "top-p": (SOUND, {}, Sampling(top_p=0.7)),
    "all three": (SOUND, {}, Sampling(temperature=1.3, top_k=6, top_p=0.8)),
    "mixture": (SOUND, MIXTURE, PLAIN),
    "mixture of 16 bits": (dataclasses.replace(SOUND, levels=2**16), MIXTURE, PLAIN),
    "mixture, coupled": (SOUND, MIXTURE | {"likelihood": "coupled-logistic-mixture"}, PLAIN),
    "mixture, sharpened": (SOUND, MIXTURE, Sampling(temperature=0.5, top_k=5, top_p=0.9)),
}


def build(spec=SOUND, dtype=torch.float64, **options) -> WaveNet:
    torch.manual_seed(0)
    model = WaveNet(dataclasses.replace(WaveNet.Config.tiny(), **options), spec).to(dtype).eval()
    with torch.no_grad():
        for p in model.parameters():  # nobody's initial values
            p.add_(0.3 * torch.randn_like(p))
    return model


def given(model, n):
    """Uniforms, labels and contexts of ``n`` examples."""
    spec, generator = model.spec, torch.Generator().manual_seed(1)
    contexts = [torch.randint(c.levels, (n, *c.shape), generator=generator) for c in spec.contexts]
    labels = torch.arange(n) % spec.classes if spec.classes else None
    return torch.rand(n, *spec.shape, generator=generator), labels, contexts


@pytest.fixture
def drawn(monkeypatch):
    """What the stream and the loop draw with the same noise."""

    def both(model, n, options=PLAIN, **more):
        uniforms, labels, contexts = given(model, n)
        results = []
        for least in (2**40, 0):
            monkeypatch.setattr(wavenet, "_WORTH_COMPILING", least)
            results.append(model.quantile(uniforms, labels, contexts=contexts, options=options, **more))
        return results

    return both


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n", [1, 5])
def test_the_loop_draws_what_the_stream_draws(case, n, drawn, monkeypatch):
    spec, config, options = CASES[case]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # which 5 examples share
    stream, loop = drawn(build(spec, **config), n, options)
    assert len(stream.unique()) > 2
    assert torch.equal(stream, loop)


def test_in_single_precision_nearly_all_are_the_same(drawn):
    stream, loop = drawn(build(dtype=torch.float32, width=16, gate_width=16, layers=4), 5)
    # A value that rounding changes changes those after it: at most in one example of the five.
    assert (stream == loop).all(-1).sum() >= 4


def test_known_values_pass_the_network_and_stay(drawn):
    model = build(kernel=3)
    x = torch.randint(11, (2, 1, STEPS), generator=torch.Generator().manual_seed(2))
    beginning = torch.arange(STEPS) < 17
    scattered = torch.rand(2, 1, STEPS, generator=torch.Generator().manual_seed(3)) < 0.5
    for known in (beginning, scattered, torch.ones(STEPS, dtype=torch.bool), beginning.flip(0)):
        stream, loop = drawn(model, 2, x=x, known=known)
        assert torch.equal(stream, loop)
        assert torch.equal(loop.long()[known.expand_as(x)], x[known.expand_as(x)])


def test_a_coarse_condition_is_a_fine_one_whose_values_repeat(monkeypatch):
    model = build(dataclasses.replace(SOUND, contexts=(Spec(shape=(1, 5), levels=4, domain="codes"),)))
    uniforms, _, contexts = given(model, 3)
    coarse = model.condition(None, contexts)
    fine = coarse.repeat_interleave(8, 3)
    expected = wavenet_stream.generate(model, uniforms, fine)
    monkeypatch.setattr(wavenet_stream, "_STEPS", 1)
    for places in (1 << 24, 1):  # all of the condition at once, or a place at a time
        monkeypatch.setattr(wavenet_stream, "_OFFSETS", places)
        assert torch.equal(wavenet_stream.generate(model, uniforms, coarse, repeat=8), expected)
    with pytest.raises(UserError, match="expected a condition for 40 values, got one for 35"):
        wavenet_stream.generate(model, uniforms, coarse, repeat=7)


def test_progress_is_told_to_its_end(monkeypatch):
    monkeypatch.setattr(wavenet_stream, "_STEPS", 1)
    model, told = build(), []
    wavenet_stream.generate(model, torch.rand(1, 1, 250), progress=told.append)
    assert told == sorted(set(told))
    assert len(told) <= 100
    assert told[-1] == 1


def test_the_stream_draws_where_the_loop_cannot(monkeypatch):
    assert wavenet_stream.compiles(build())
    assert not wavenet_stream.compiles(build(Spec(shape=(2, STEPS))))
    assert not wavenet_stream.compiles(build(dtype=torch.bfloat16))
    usual = builtins.__import__

    def without_numba(name, *arguments, **options):
        if name == "numba":
            raise ImportError(name)
        return usual(name, *arguments, **options)

    model = build()
    uniforms, *_ = given(model, 1)
    expected = model.quantile(uniforms)
    monkeypatch.setattr(builtins, "__import__", without_numba)
    monkeypatch.setattr(wavenet, "_WORTH_COMPILING", 0)
    monkeypatch.setattr(wavenet, "generate", None)
    assert not wavenet_stream.compiles(model)
    assert torch.equal(model.quantile(uniforms), expected)


def test_a_changed_network_is_not_compiled(monkeypatch):
    class Louder(WaveNet):
        def trunk(self, x, rows, condition, cursor=None):
            return 2 * super().trunk(x, rows, condition, cursor)

    monkeypatch.setattr(wavenet, "_WORTH_COMPILING", 0)
    monkeypatch.setattr(wavenet, "generate", None)
    torch.manual_seed(0)
    model = Louder(WaveNet.Config.tiny(), SOUND).eval()
    assert model.quantile(torch.rand(1, 1, STEPS)).shape == (1, 1, STEPS)


def test_the_quick_tanh_is_tanh():
    from numba import float32

    from ancestral.models.autoregressive.wavenet_loop import _tanh_of

    quick = _tanh_of(float32)
    points = torch.cat([torch.linspace(-12, 12, 501), torch.tensor([torch.inf, -torch.inf, 1e-20])])
    for x in points.numpy():
        # It is said to be within 4e-7.
        assert abs(float(quick(x)) - math.tanh(float(x))) <= 4e-7 * abs(math.tanh(float(x)))


def test_it_compiles_where_no_program_can_be_kept():
    program = "from ancestral.models.autoregressive import wavenet_loop as w; print(w._compiled._cache)"
    nowhere = os.environ | {"NUMBA_CACHE_LOCATOR_CLASSES": "IPythonCacheLocator"}
    run = subprocess.run(
        [sys.executable, "-c", program], env=nowhere, capture_output=True, text=True, check=True
    )
    assert "NullCache" in run.stdout
