"""``ancestral convert``: what it writes, and mistakes as one line."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import ancestral
from ancestral.batch import Batch
from ancestral.clips import Clip, clips
from ancestral.data import Dataset, Sounds
from ancestral.errors import UserError
from ancestral.evaluation import convert
from ancestral.evaluation.conversion import own_sound
from ancestral.models.autoregressive.wavenet import WaveNet
from ancestral.models.latent.sound_vqvae import FeedForward, SoundVQVAE
from ancestral.runs import Run
from ancestral.spec import Spec
from ancestral.training import TrainingOptions

SPEC = Spec(shape=(1, 64), levels=256, classes=3, rate=8000, encoding="mu-law")
LENGTHS = (90, 64, 30, 90, 70, 120)
CLASSES = ("anna", "ben", "cleo")


def recordings(seed):
    samples = torch.randint(256, (sum(LENGTHS), 1), generator=torch.Generator().manual_seed(seed))
    return Sounds(samples.to(torch.uint8), torch.tensor(LENGTHS), torch.arange(6) % 3, silence=128)


@pytest.fixture(scope="module")
def data():
    train, validation, test = map(recordings, range(3))
    return Dataset(source="mine", spec=SPEC, train=train, validation=validation, test=test, classes=CLASSES)


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    tiny = {"hidden": 8, "kind": "mlp"}
    sizes = {"width": 4, "gate_width": 4, "skip_width": 4, "layers": 2, "cycles": 1, "condition_width": 4}
    sound = {
        "strides": [8], "input": "waveform", "width": 4, "residual_width": 4, "blocks": 1,
        "quantizer": {"kind": "vector", "codebook_size": 4, "dim": 4}, "decoder": sizes | {"kind": "wavenet"},
        "prior": sizes,
    }  # fmt: skip
    few = {"steps": 2, "batch_size": 4, "compile": False}
    options = TrainingOptions(device="cpu", sample_every=0, evaluate_every=0)
    for name, config, stages in (
        ("vqvae-sound", sound, {"tokenizer": few, "prior": few}),
        ("vae", {"latents": 2, "architecture": tiny}, {"training": few}),
    ):
        crops = {split: data.split(split).crops(64)[:] for split in ("train", "validation", "test")}
        used = data if name == "vqvae-sound" else replace(data, **crops, fingerprint="")
        ancestral.train(name, data=used, out=folder / name, config=config, stages=stages, options=options)
    return folder


@pytest.fixture(autouse=True)
def own_data(data, monkeypatch):
    """What runs were trained on is in memory."""
    monkeypatch.setattr(Run, "load_data", lambda self: data)


def model_of(spec=SPEC, **changes):
    torch.manual_seed(0)
    config = replace(SoundVQVAE.Config.tiny(), strides=(8,), **changes)
    model = SoundVQVAE(config, spec).eval()
    model.classes = CLASSES[: spec.classes]
    return model


def test_sounds_of_the_data_in_another_voice(call, runs, data):
    assert call("convert RUNS/vqvae-sound --to ben -n 3 --out .") == (
        0, "conversions-ben.png\nconversions-ben/*.wav\n", ""
    )  # fmt: skip
    heard = clips(Path("conversions-ben"))
    names = ("original", "reconstruction", "converted")
    assert list(heard) == [Clip(i, name) for i in range(3) for name in names]
    # anna, cleo and anna again
    others = [own_sound(data.test, row) for row in (0, 2, 3)]
    assert [soundfile.info(path).frames for path in heard.values()] == [
        x.shape[1] for x in others for _ in names
    ]
    model = ancestral.load(runs / "vqvae-sound")
    found = convert(model, data, to="ben", n=3)
    for i, x in enumerate(others):
        own = slice(int(found.lengths[i]))
        assert torch.equal(found.originals[i, :, own], x)
        assert (found.originals[i, :, own.stop :] == 128).all()
    assert found.labels.tolist() == [0, 2, 0]
    alone = model.convert(others[1][None], torch.tensor([1]))  # the only one of its length
    assert torch.equal(found.converted[1:2, :, :30], alone)
    assert torch.equal(found.reconstructions[1:2, :, :30], model.convert(others[1][None], torch.tensor([2])))
    assert call("convert RUNS/vqvae-sound --to ben -n 9 --out .")[1].endswith(
        "(test has 4 sounds of other speakers only)\n"
    )


def test_files_in_another_voice(call, runs):
    wave = 0.5 * np.sin(np.arange(200) / 5)
    soundfile.write("a.wav", wave, 8000)
    soundfile.write("b.wav", np.stack([wave, wave], 1), 16000)
    status, output, _ = call("convert RUNS/vqvae-sound a.wav b.wav --to 2 --out .")
    assert (status, output.splitlines()) == (
        0,
        [
            "b.wav: 2 channels made one, 16,000 Hz resampled to 8,000 Hz",
            "conversions-cleo-a-b.png",
            "conversions-cleo-a-b/*.wav",
        ],
    )
    assert soundfile.info("conversions-cleo-a-b/conversions-cleo-a-b-0-converted.wav").frames == 200
    assert soundfile.info("conversions-cleo-a-b/conversions-cleo-a-b-1-converted.wav").frames == 100


def test_voices_differ_and_the_noise_does_not():
    model = model_of(decoder=replace(WaveNet.Config.tiny(), class_conditional=True))
    x = torch.randint(256, (2, 1, 64), generator=torch.Generator().manual_seed(0))
    batch = Batch(x, torch.tensor([0, 0]))
    same, other = (convert(model, batch, to=to) for to in ("ben", "cleo"))
    assert torch.equal(same.reconstructions, other.reconstructions)
    assert not torch.equal(same.converted, other.converted)
    assert torch.equal(convert(model, batch, to=1).converted, same.converted)
    assert not torch.equal(convert(model, batch, to=1, seed=1).converted, same.converted)
    unknown = convert(model, x, to="anna")
    assert unknown.labels is None
    assert torch.equal(unknown.converted, same.reconstructions)


def test_padding_of_a_batch_is_no_part_of_its_sounds():
    model = model_of(decoder=FeedForward(least_width=4))
    x = torch.randint(256, (2, 1, 64), generator=torch.Generator().manual_seed(0))
    padded = convert(model, Batch(x, lengths=torch.tensor([64, 21])), to=0)
    alone = convert(model, x[1:, :, :21], to=0)
    assert padded.lengths.tolist() == [64, 21]
    torch.testing.assert_close(padded.converted[1:, :, :21], alone.converted)
    assert (padded.converted[1, :, 21:] == 128).all()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("convert RUNS/vae --to ben", "decoder is told the speaker, got VAE; train one: ancestral train"),
        ("convert RUNS/vqvae-sound --to bem", "expected a class of the model, got bem; did you mean ben?"),
        ("convert RUNS/vqvae-sound --to 3", "expected labels 0..2, got 3; choose labels among"),
        ("convert RUNS/vqvae-sound", "--to"),
        ("convert RUNS/vqvae-sound none.wav --to ben", "got none.wav; check the path"),
        ("convert RUNS/vqvae-sound text.wav --to ben", "expected a sound in text.wav, got: not a sound"),
        ("convert RUNS/vqvae-sound . --to ben", "expected the file of a sound"),
        ("convert RUNS/vqvae-sound a.wav --data tones --to ben", "expected files or --data, got both"),
        ("convert RUNS/vqvae-sound --to ben -n 0", "expected at least 1 sound, got 0"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(call, line, message):
    Path("text.wav").write_text("no sound")
    status, _, errors = call(line)
    assert (status, errors.count("\n")) == (2, 1)
    assert message in errors


@pytest.mark.parametrize(
    ("model", "got"),
    [
        (lambda: model_of(replace(SPEC, classes=0)), "one that knows no classes"),
        (lambda: model_of(replace(SPEC, classes=1)), "one of a single class"),
        (
            lambda: model_of(decoder=replace(WaveNet.Config.tiny(), class_conditional=False)),
            "one that knows no classes",
        ),
    ],
)
def test_a_model_of_one_voice_converts_nothing(model, got):
    with pytest.raises(UserError, match=f"a model of several voices to convert to one of them, got {got}"):
        convert(model(), torch.zeros(1, 1, 64, dtype=torch.uint8), to=0)


def test_sounds_that_are_all_of_the_voice_already():
    batch = Batch(torch.zeros(2, 1, 64, dtype=torch.uint8), torch.tensor([1, 1]))
    with pytest.raises(UserError, match="sounds of other voices than the one to convert to, got none"):
        convert(model_of(), batch, to="ben")
