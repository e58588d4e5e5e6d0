"""WaveNet on sounds: any length, padding, windows, conditions at a rate of their own."""

import math
from dataclasses import replace

import pytest
import torch

from ancestral.batch import Batch
from ancestral.errors import UserError
from ancestral.models.autoregressive import wavenet
from ancestral.models.autoregressive.transformer import Transformer
from ancestral.models.autoregressive.wavenet import WaveNet
from ancestral.spec import Spec
from ancestral.stages import Progress
from ancestral.testing import certify

CODES = Spec(shape=(1, 6), levels=5, domain="codes")
SOUND = Spec(shape=(1, 24), levels=7, rate=8000, encoding="mu-law", classes=2)
CONDITIONED = Spec(shape=(1, 24), levels=7, rate=8000, encoding="mu-law", classes=2, contexts=(CODES,))


def model_of(spec: Spec, **options: object) -> WaveNet:
    torch.manual_seed(0)
    model = WaveNet(WaveNet.Config(**{**TINY, **options}), spec).double().eval()
    for parameter in model.parameters():  # biases start at 0, where a leak through them would not show
        torch.nn.init.normal_(parameter, std=0.3)
    return model


TINY = dict(width=4, gate_width=4, skip_width=4, layers=2, cycles=2, condition_width=3)


def batch_of(spec: Spec, n: int, length: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    contexts = tuple(
        torch.randint(c.levels, (n, 1, c.shape[-1] * length // spec.shape[-1]), generator=generator)
        for c in spec.contexts
    )
    x = torch.randint(spec.levels, (n, 1, length), generator=generator)
    return Batch(x, torch.arange(n) % spec.classes, contexts)


@pytest.mark.parametrize("spec", [SOUND, CONDITIONED])
@pytest.mark.parametrize("length", [24, 32, 96])
def test_windows_give_the_log_probabilities_of_the_whole(spec, length, monkeypatch):
    model, batch = model_of(spec, kernel=3), batch_of(spec, 3, length)
    with torch.no_grad():
        whole = model.log_probs(batch)
        monkeypatch.setattr(wavenet, "WINDOW", 8)
        assert model.reach < length - 8 or length < 40
        windows = model.log_probs(batch)
    assert torch.allclose(whole, windows, atol=1e-12, rtol=0)


def test_reach_is_how_far_back_a_value_depends():
    model = model_of(Spec(shape=(1, 40), levels=4), kernel=3)
    past = model.declared_past()[-1].nonzero()[:, 0]
    assert 39 - int(past.min()) == model.reach


def test_a_padded_batch_has_the_likelihood_of_the_sounds_alone():
    model, batch = model_of(SOUND), batch_of(SOUND, 3, 30)
    lengths = torch.tensor([30, 7, 19])
    padded = Batch(batch.x, batch.labels, lengths=lengths)
    with torch.no_grad():
        together = model.log_likelihood(padded)
        alone = [
            model.log_likelihood(Batch(batch.x[i : i + 1, :, : lengths[i]], batch.labels[i : i + 1]))
            for i in range(3)
        ]
    assert torch.allclose(together, torch.cat(alone), atol=1e-12, rtol=0)


def test_the_loss_weighs_values_not_sounds():
    model, batch = model_of(SOUND), batch_of(SOUND, 2, 24)
    padded = Batch(batch.x, batch.labels, lengths=torch.tensor([24, 6]))
    loss = model.loss(padded, "training", Progress.at(0, 1))
    nats = -model.log_likelihood(padded)
    assert math.isclose(
        float(loss.terms["given_label_bits_per_sample"]), nats.sum().item() / 30 / math.log(2)
    )
    assert math.isclose(loss.total.item(), nats.sum().item() / 48 / math.log(2))


def test_padding_has_no_gradient():
    model, batch = model_of(SOUND), batch_of(SOUND, 2, 24)
    other = batch.x.clone()
    other[1, :, 6:] = 0
    gradients = []
    for x in (batch.x, other):
        model.zero_grad()
        padded = Batch(x, batch.labels, lengths=torch.tensor([24, 6]))
        model.loss(padded, "training", Progress.at(0, 1)).total.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert torch.equal(*gradients)


@pytest.mark.parametrize("spec", [SOUND, CONDITIONED])
def test_streams_of_another_length_are_the_whole_network(spec):
    model = model_of(spec, kernel=3).at_length(36)
    batch = batch_of(spec, 2, 36)
    stream = model.stream(2, batch.labels, batch.contexts)
    with torch.no_grad():
        log_p = model.conditionals(batch.x, batch.labels, batch.contexts).log_prob(batch.x)
    for t in range(36):
        assert stream.index == (0, t)
        assert torch.allclose(stream.conditional().log_prob(batch.x[:, 0, t]), log_p[:, 0, t], atol=1e-9)
        stream.push(batch.x[:, 0, t])
    assert stream.index is None


def test_no_value_of_a_sound_sees_itself_or_what_follows():
    for spec in (SOUND, CONDITIONED):
        certificate = certify(model_of(spec, kernel=3), trials=4)
        assert not len(certificate.leaks), str(certificate)
        assert not len(certificate.undeclared), str(certificate)


def test_conditions_are_projected_at_their_own_rate():
    model, batch = model_of(CONDITIONED, skip_width=16), batch_of(CONDITIONED, 2, 48)  # some units live
    condition = model.condition(batch.labels, batch.contexts)
    assert condition.shape == (2, 3, 1, 12)
    changed = batch.contexts[0].clone()
    changed[:, :, -1] = (changed[:, :, -1] + 1) % 5
    with torch.no_grad():
        before, after = (
            model.log_probs(Batch(batch.x, batch.labels, (c,))) for c in (batch.contexts[0], changed)
        )
    # Two convolutions and two blocks see some codes to each side: far from the end nothing moves.
    assert not torch.equal(before[..., -4:], after[..., -4:])
    assert torch.equal(before[..., :16], after[..., :16])


@pytest.mark.parametrize(
    "spec", [replace(CODES, classes=2), replace(CONDITIONED, domain="codes", rate=None, encoding=None)]
)
def test_a_transformer_takes_sequences_of_any_length(spec):
    torch.manual_seed(0)
    model = Transformer(Transformer.Config.tiny(), spec).double().eval().at_length(2 * spec.shape[1])
    batch = batch_of(spec, 2, 2 * spec.shape[1])
    stream = model.stream(2, batch.labels, batch.contexts)
    with torch.no_grad():
        log_p = model.conditionals(batch.x, batch.labels, batch.contexts).log_prob(batch.x)
    for t in range(2 * spec.shape[1]):
        assert torch.allclose(stream.conditional().log_prob(batch.x[:, 0, t]), log_p[:, 0, t], atol=1e-9)
        stream.push(batch.x[:, 0, t])
    learned = Transformer(replace(Transformer.Config.tiny(), positions="learned"), spec)
    with pytest.raises(UserError, match="expected rotary positions for a length of 7, got learned ones"):
        learned.at_length(7)


def test_lengths():
    model = model_of(SOUND)
    longer = model.at_length(50)
    assert longer.sample(2, labels=torch.tensor([0, 1])).shape == (2, 1, 50)
    assert model.spec.shape == (1, 24)
    assert next(longer.parameters()) is next(model.parameters())
    with pytest.raises(UserError, match="steps of 4, as the codes are, got 50; give 52"):
        model_of(CONDITIONED).at_length(50)
    with pytest.raises(UserError, match="of sounds, got 50 of image"):
        WaveNet(WaveNet.Config.tiny(), Spec(shape=(1, 4, 4), levels=3)).at_length(50)


def test_a_step_is_one_graph():
    model, batch = model_of(SOUND).train(), batch_of(SOUND, 2, 24)
    padded = Batch(batch.x, batch.labels, lengths=torch.tensor([24, 6]))
    given = padded, "training", Progress.at(0, 1)
    # Anything that a compiled step would leave for Python raises.
    compiled = torch.compile(model.loss, backend="eager", dynamic=False, fullgraph=True)(*given)
    assert torch.equal(compiled.total, model.loss(*given).total)
    torch.compiler.reset()


def test_sixteen_bits_are_no_softmax():
    spec = replace(SOUND, levels=2**16)
    with pytest.raises(UserError, match="at most 4,096 levels for a softmax over them, got 65,536; take the"):
        WaveNet(WaveNet.Config.tiny(), spec)
    WaveNet(replace(WaveNet.Config.tiny(), likelihood="logistic-mixture"), spec)
