"""VQ-VAE of sound: padding counts nowhere, codes of any length, voices, levels, both decoders."""

import math
from dataclasses import replace

import pytest
import torch

from ancestral.batch import Batch
from ancestral.errors import UserError
from ancestral.models.autoregressive.transformer import Transformer
from ancestral.models.autoregressive.wavenet import WaveNet
from ancestral.models.latent.quantizers import FiniteScalar, Residual, Vector
from ancestral.models.latent.sound_vqvae import FeedForward, SoundVQVAE
from ancestral.nn.sequences import jittered, normalized, own, wrapped
from ancestral.spec import Spec
from ancestral.stages import Progress, initialize

SPEC = Spec(shape=(1, 32), levels=16, classes=2, rate=8000, encoding="mu-law")
TINY = SoundVQVAE.Config.tiny()
LEVELS = replace(TINY, strides=(8, 4))
MEL = replace(TINY, input="log-mel", bands=3, hops=2, strides=(160,))
FAST = replace(TINY, decoder=FeedForward(least_width=4))
HELPED = replace(MEL, auxiliary=2.0)
ATTENTIVE = replace(LEVELS, prior=Transformer.Config.tiny())
SKETCHED = replace(TINY, auxiliary=1.0, bands=3, hops=2)
CONFIGS = {
    "waveform": TINY,
    "levels": LEVELS,
    "feed-forward": FAST,
    "feed-forward, narrower than its decoder": replace(TINY, decoder=FeedForward(least_width=8)),
    "transformer": ATTENTIVE,
    "auxiliary": SKETCHED,
    "auxiliary beside feed-forward": replace(FAST, auxiliary=1.0),
}


def model_of(config: SoundVQVAE.Config = TINY, spec: Spec = SPEC) -> SoundVQVAE:
    torch.manual_seed(0)
    return SoundVQVAE(config, spec).double().eval()


def sounds(n: int, length: int, spec: Spec = SPEC) -> torch.Tensor:
    return torch.randint(spec.levels, (n, 1, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "config", [TINY, LEVELS, ATTENTIVE, MEL], ids=["waveform", "levels", "transformer", "log-mel"]
)
def test_a_padded_batch_has_codes_and_bound_of_the_sounds_alone(config):
    stride = config.strides[0]
    spec = replace(SPEC, shape=(1, 4 * stride))
    model, x, lengths = model_of(config, spec), sounds(3, 4 * stride, spec), None
    lengths = torch.tensor([4 * stride, stride + 1, 2 * stride - 1])
    labels = torch.tensor([0, 1, 0])
    padded = Batch(x, labels, lengths=lengths)
    with torch.no_grad():
        together = model.log_likelihood(padded)
        levels = model.encode(padded)
        for i, length in enumerate(lengths.tolist()):
            alone = Batch(x[i : i + 1, :, :length], labels[i : i + 1])
            assert torch.allclose(model.log_likelihood(alone), together[i : i + 1], rtol=1e-9)
            codes = model.tokenize(alone.x)
            for quantized, found, step in zip(levels, codes, config.strides, strict=True):
                many = -(-length // stride) * (stride // step)
                assert found.shape[2] == many
                assert torch.equal(quantized.codes[i : i + 1, :, :many], found)


def test_padding_enters_no_codebook():
    model, x = model_of(), sounds(4, 32)
    lengths = torch.tensor([32, 5, 9, 32])
    other = x.clone()
    for i, length in enumerate(lengths.tolist()):
        other[i, :, length:] = 15 - other[i, :, length:]
    books = []
    for values in (x, other):
        model = model_of().train()
        batch = Batch(values, torch.tensor([0, 1, 0, 1]), lengths=lengths)
        initialize(model, model.stages()[0], batch)
        torch.manual_seed(2)
        model.loss(batch, "tokenizer", Progress.at(0, 1)).total.backward()
        books.append(torch.cat([b.flatten().double() for b in model.quantizers.buffers()]))
        books.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert torch.equal(books[0], books[2])
    assert torch.equal(books[1], books[3])


def test_conversion_changes_the_voice_and_nothing_else(monkeypatch):
    model, x = model_of(), sounds(2, 30)
    asked = []
    quantile = WaveNet.quantile

    def watched(self, uniforms, labels=None, **given):
        asked.append((uniforms, labels, given["contexts"]))
        return quantile(self, uniforms, labels, **given)

    monkeypatch.setattr(WaveNet, "quantile", watched)
    first, second = (model.convert(x, torch.tensor([c, c])) for c in (0, 1))
    assert first.shape == second.shape == (2, 1, 30)
    assert not torch.equal(first, second)
    (noise, zeros, (features,)), (same_noise, ones, (same,)) = asked
    assert torch.equal(noise, same_noise)
    assert torch.equal(features, same)
    assert (zeros.tolist(), ones.tolist()) == ([0, 0], [1, 1])
    assert torch.equal(model.convert(x, torch.tensor([0, 0])), first)


def test_the_decoder_is_told_that_a_class_is_unknown():
    model, x = model_of(), sounds(2, 32)
    codes = model.tokenize(x)
    unknown = model.distortion(Batch(x), codes)
    features = (model.features(model.code_vectors(codes), None),)
    third = model.decoder.log_likelihood(Batch(x, torch.tensor([2, 2]), features))
    assert torch.allclose(unknown, -third)
    with torch.no_grad():
        model.decoder.conditioner.classes.weight[2] += 1
    assert not torch.allclose(model.distortion(Batch(x), codes), unknown)


def test_training_hides_some_classes_and_moves_some_codes():
    model = model_of(replace(TINY, unknown=0.5, jitter=0.5)).train()
    torch.manual_seed(0)
    told = model.speakers(torch.zeros(1000, dtype=torch.int64), 1000)
    assert 0.4 < float((told == 2).double().mean()) < 0.6
    assert set(told.tolist()) == {0, 2}
    assert model.eval().speakers(torch.zeros(5, dtype=torch.int64), 5).tolist() == [0] * 5


@pytest.mark.parametrize("name", CONFIGS)
def test_sounds_of_any_length(name):
    model = model_of(CONFIGS[name])
    labels = torch.tensor([0, 1])
    assert model.sample(2, labels=labels).shape == (2, 1, 32)
    longer = model.at_length(48)
    x = longer.sample(2, labels=labels)
    assert x.shape == (2, 1, 48)
    longer.spec.check(x)
    assert model.spec.shape == (1, 32)
    assert model.level_priors[0].spec.shape == (1, 32 // CONFIGS[name].strides[0])
    assert next(longer.parameters()) is next(model.parameters())
    assert longer.state_dict().keys() == model.state_dict().keys()
    version = model.reconstruct(x[..., :45])
    assert version.shape == (2, 1, 45)
    assert torch.equal(model.detokenize(model.tokenize(x[..., :45]))[..., :45], version)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    "codes",
    [
        Vector(codebook_size=4, dim=4),
        Residual(codebook_size=4, dim=4, num_codebooks=2),
        FiniteScalar(levels=(3, 3)),
    ],
    ids=lambda c: c.kind,
)
def test_every_part_learns(name, codes):
    model = model_of(replace(CONFIGS[name], quantizer=codes, jitter=0.1)).train()
    x, labels = sounds(8, 32), torch.arange(8) % 2
    batch = Batch(x, labels, lengths=torch.tensor([32] * 7 + [17]))
    stages = {stage.name: stage for stage in model.stages()}
    assert list(stages) == ["tokenizer", *model.level_names]
    initialize(model, stages["tokenizer"], batch)
    loss = model.loss(batch, "tokenizer", Progress.at(0, 1))
    assert math.isfinite(loss.total.item())
    loss.total.backward()
    trained = {id(p): n for n, p in model.named_parameters() if p.grad is not None}
    assert {id(p) for m in stages["tokenizer"].modules for p in m.parameters()} == trained.keys()
    with torch.no_grad():
        prepared = model.eval().code_batch(batch)
    for name in model.level_names:
        stage = stages[name]
        part = prepared if stage.transform is None else stage.transform(prepared, Progress.at(0, 1))
        assert math.isfinite(model.loss(part, name, Progress.at(0, 1)).total.item())


def test_prior_learns_the_codes_of_sounds_without_their_padding():
    model = model_of(LEVELS)
    batch = Batch(sounds(2, 32), torch.tensor([0, 1]), lengths=torch.tensor([32, 9]))
    with torch.no_grad():
        prepared = model.code_batch(batch)
        assert prepared.lengths.tolist() == [8, 4]
        (stage,) = [s for s in model.stages() if s.name == "top"]
        coarse = stage.transform(prepared, Progress.at(0, 1))
        assert coarse.lengths.tolist() == [4, 2]
        top, bottom = (model.level_priors[i].log_likelihood(b) for i, b in enumerate((coarse, prepared)))
        rates = model.rates((coarse.x.long(), prepared.x.long()), batch.labels, batch.lengths)
    assert torch.allclose(-torch.stack([top, bottom]), torch.stack(rates))


def test_features_that_a_codebook_learns_from_are_own_ones():
    x = torch.arange(10.0).view(1, 1, 10)
    assert wrapped(x, torch.tensor([4])).flatten().tolist() == [0, 1, 2, 3] * 2 + [0, 1]
    assert own(x, torch.tensor([4])).flatten().tolist() == [0, 1, 2, 3] + [0] * 6
    y = normalized(torch.randn(2, 5, 3).double())
    assert torch.allclose(y.mean(1), torch.zeros(2, 3).double(), atol=1e-12)
    assert torch.allclose(y.var(1, unbiased=False), torch.ones(2, 3).double(), atol=1e-3)


def test_jitter_takes_neighbors_alike():
    torch.manual_seed(0)
    x = torch.arange(5.0).expand(20_000, 1, 5).contiguous()
    moved = jittered(x, 0.3, None)[:, 0] - x[:, 0]
    assert set(moved.flatten().tolist()) == {-1.0, 0.0, 1.0}
    for place, (left, right) in enumerate([(0, 0.15), (0.15, 0.15), (0.15, 0.15), (0.15, 0.15), (0.15, 0)]):
        shares = [float((moved[:, place] == step).double().mean()) for step in (-1, 1)]
        assert shares == pytest.approx([left, right], abs=0.01)  # four standard errors
    short = jittered(x, 0.5, torch.full((20_000,), 3))[:, 0]
    assert float(short[:, 2].max()) == 2


def test_the_auxiliary_decoder_adds_to_the_loss_and_to_nothing_else():
    spec = replace(SPEC, shape=(1, 640))
    helped, plain = model_of(HELPED, spec), model_of(MEL, spec)
    helped.load_state_dict(plain.state_dict() | helped.sketch.state_dict(prefix="sketch."))
    lengths = torch.tensor([640, 170, 320])
    batch = Batch(sounds(3, 640, spec), torch.tensor([0, 1, 0]), lengths=lengths)
    with torch.no_grad():
        assert torch.equal(helped.log_likelihood(batch), plain.log_likelihood(batch))
        loss, without = (m.loss(batch, "tokenizer", Progress.at(0, 1)) for m in (helped, plain))
        torch.testing.assert_close(loss.total, without.total + 2 * loss.terms["sketch"])
        # Each code of each sound counts alike: 4, 2 and 2 of them.
        alone = [
            helped.loss(
                Batch(batch.x[i : i + 1, :, :n], batch.labels[i : i + 1]), "tokenizer", Progress.at(0, 1)
            )
            for i, n in enumerate(lengths.tolist())
        ]
        errors = [part.terms["sketch"] for part in alone]
        torch.testing.assert_close(loss.terms["sketch"], (4 * errors[0] + 2 * errors[1] + 2 * errors[2]) / 8)


@pytest.mark.parametrize(
    ("changes", "spec", "message"),
    [
        ({}, Spec(shape=(1, 4, 4), levels=4), "expected sounds .1, T. of integers, got image"),
        ({"strides": (8, 3)}, SPEC, "each a power of 2 times the next"),
        ({"strides": (4, 4)}, SPEC, "each a power of 2 times the next"),
        ({"strides": (12,)}, SPEC, "a power of 2 as the finest stride for input waveform, got 12; try"),
        ({"strides": (128,)}, SPEC, "a multiple of 128 samples, got 32; give --sound.length 128"),
        ({"hops": 3}, SPEC, "a power of 2 as hops, got 3"),
        ({"input": "log-mel", "hops": 4, "strides": (6,)}, SPEC, "a stride that 4 frames divide, got 6"),
        ({"input": "log-mel"}, Spec(shape=(1, 32), levels=4), "sounds with a rate for mel bands, got none"),
        ({"auxiliary": 1.0}, Spec(shape=(1, 32), levels=4), "sounds with a rate for mel bands, got none"),
    ],
)
def test_what_does_not_go_together(changes, spec, message):
    with pytest.raises(UserError, match=message):
        SoundVQVAE(replace(TINY, **changes), spec)


def test_lengths_that_codes_do_not_cover():
    with pytest.raises(UserError, match="in steps of 8, as the codes are, got 20; give 24"):
        model_of(LEVELS).at_length(20)


@pytest.mark.filterwarnings(
    "ignore:.*should not be instantiated:DeprecationWarning"
)  # raised by torch.compile itself
@pytest.mark.parametrize("config", [MEL, HELPED], ids=["plain", "auxiliary"])
def test_a_step_on_mel_bands_is_one_graph(config):
    spec = replace(SPEC, shape=(1, 320))
    model, batch = model_of(config, spec), Batch(sounds(2, 320, spec), torch.tensor([0, 1]))
    given = batch, "tokenizer", Progress.at(0, 1)
    # Anything that a compiled step would leave for Python raises.
    compiled = torch.compile(model.loss, backend="eager", dynamic=False, fullgraph=True)(*given)
    assert torch.equal(compiled.total, model.loss(*given).total)
    torch.compiler.reset()
