"""What training, commands and the report make of sounds: pictures, files beside them, players."""

import base64
import io
import re
import wave
from dataclasses import replace

import numpy as np
import pytest
import torch

import ancestral
from ancestral.batch import Batch
from ancestral.cli import main as commands
from ancestral.clips import Clip, clips
from ancestral.data import Dataset, Sounds
from ancestral.media import write_png, write_sounds
from ancestral.report import write_report
from ancestral.report.pictures import picture
from ancestral.runs import Run
from ancestral.spec import Spec
from ancestral.training import TrainingOptions, sheets

LENGTHS = torch.tensor([90, 64, 30, 90, 5, 90])


@pytest.fixture(scope="module")
def whole():
    """Whole sounds, of different lengths."""
    x = torch.randint(256, (6, 1, 90), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return Batch(x, labels=torch.arange(6) % 2, lengths=LENGTHS)


@pytest.fixture(scope="module")
def data(whole):
    """Sounds of which a training sees 64 values each."""
    spec = Spec(shape=(1, 64), rate=8000, encoding="mu-law", classes=2)
    cut = Batch(whole.x[..., :64], labels=whole.labels, lengths=LENGTHS.clamp(max=64))
    train = Batch(cut.x, labels=cut.labels)
    return Dataset(source="mine", spec=spec, train=train, validation=cut, test=cut, classes=("low", "high"))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A trained VAE: of the models that reconstruct, the one that takes anything."""
    out = tmp_path_factory.mktemp("runs") / "run"
    options = TrainingOptions(device="cpu", sample_every=0, evaluate_every=0)
    config = {"latents": 2, "architecture": {"kind": "mlp", "hidden": 8}}
    return ancestral.train(
        "vae", data=data, out=out, config=config, stages={"training": {"steps": 2, "batch_size": 4}},
        options=options,
    )  # fmt: skip


@pytest.fixture
def call(run, data, monkeypatch, tmp_path, capsys):
    """A command on the run, whose data are in memory; what it says is where it wrote."""
    monkeypatch.setattr(Run, "load_data", lambda self: data)

    def give(line):
        assert commands.run([*line.split(), "--out", str(tmp_path)]) == 0
        capsys.readouterr()
        return tmp_path

    words = str(run.path)
    return lambda line: give(line.replace("RUN", words))


def samples(source):
    """How many values a .wav has, of a path or of a data URI."""
    data = source
    if isinstance(source, str):
        kind, _, code = source.partition(";base64,")
        assert kind == "data:audio/wav"
        data = io.BytesIO(base64.b64decode(code))
    with wave.open(data if isinstance(data, io.BytesIO) else str(data)) as file:
        assert file.getframerate() == 8000
        return file.getnframes()


def test_names_of_clips_are_read_back(tmp_path):
    folder = tmp_path / "a-0"
    folder.mkdir()
    written = [Clip(0, "original"), Clip(0, "level 1 of 2"), Clip(1, "original"), Clip(10, "original")]
    for clip in reversed(written):
        clip.path(folder, 11).touch()
    (folder / "mine.wav").touch()
    assert list(clips(folder)) == written
    assert clips(tmp_path / "none") == {}


def test_a_training_draws_few_sounds_and_writes_them(run):
    folder = run.path / "samples"
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [
        "training-reconstructions-000002.png",
        "training-step-000002.png",
    ]
    assert [samples(path) for path in clips(folder / "training-step-000002").values()] == [64] * 4
    heard = clips(folder / "training-reconstructions-000002")
    assert list(heard) == [Clip(i, name) for i in range(4) for name in ("original", "reconstruction")]


def test_reconstructions_of_a_training_are_as_long_as_its_examples_and_without_padding(run, data, whole):
    samples = torch.cat([x[0, :n] for x, n in zip(whole.x, LENGTHS.tolist(), strict=True)])
    recordings = Sounds(samples[:, None], LENGTHS, whole.labels)
    sheet = sheets.reconstructions(ancestral.load(run.path), replace(data, validation=recordings))
    assert sheet.lengths.tolist() == [64, 64, 64, 5]  # of the first, second, fourth and fifth
    expected = replace(whole.some(4), x=whole.some(4).x[..., :64], lengths=sheet.lengths)
    assert torch.equal(sheet.shown["original"], expected.without_padding(expected.x))


def test_sample_writes_the_sounds_of_its_sheet(call):
    where = call("sample RUN -n 5")
    assert (where / "samples-seed0.png").is_file()
    assert [samples(path) for path in clips(where / "samples-seed0").values()] == [64] * 5
    call("sample RUN -n 2 --seed 3 --format files")
    assert len(clips(where / "samples-seed3")) == 2
    assert not (where / "samples-seed3.png").exists()


def test_reconstruct_writes_pairs_of_their_own_length(call):
    where = call("reconstruct RUN --n 5")
    heard = clips(where / "reconstructions")
    assert [clip.name for clip in heard] == ["original", "reconstruction"] * 5
    assert [samples(path) for path in heard.values()] == [n for n in (64, 64, 30, 64, 5) for _ in range(2)]


def test_the_report_has_players_for_what_lies_beside_its_sheets(run):
    text = write_report(run.path).read_text()
    players = re.findall(r'<span>([^<]*)</span><audio controls preload="metadata" src="([^"]*)"', text)
    names = [f"{i} {name}" for i in range(1, 5) for name in ("original", "reconstruction")]
    assert [name for name, _ in players] == ["1", "2", "3", "4", *names]
    assert {samples(source) for _, source in players[:4]} == {64}
    assert "media-src data:" in text
    assert "0.008 s at 8,000 Hz, 256 levels, 2 classes" in text


def test_the_report_has_the_last_conversions(run):
    place = run.path / "samples" / "conversions-low.png"
    write_png(place, np.zeros((2, 2, 3), np.uint8))
    x = torch.full((1, 1, 64), 128, dtype=torch.uint8)
    write_sounds(place.with_suffix(""), Spec(shape=(1, 64), rate=8000), {"original": x, "converted": x})
    text = write_report(run.path).read_text()
    assert '<section id="conversions">' in text
    assert "1 converted</span>" in text
    place.unlink()
    assert '<section id="conversions">' not in write_report(run.path).read_text()


def test_a_sheet_brings_whole_pairs_as_far_as_there_is_room(tmp_path):
    spec = Spec(shape=(1, 64), rate=8000)
    folder = tmp_path / "a"
    write_png(tmp_path / "a.png", np.zeros((2, 2, 3), np.uint8))
    x = torch.full((6, 1, 300_000), 128, dtype=torch.uint8)
    lengths = torch.tensor([100, 300_000, 200, 300, 400, 500])
    write_sounds(folder, spec, {"original": x, "version": x}, lengths)
    found = picture(tmp_path / "a.png", heard=True)
    assert [sound.name[0] for sound in found.sounds] == ["1", "1", "3", "3", "4", "4", "5", "5"]
    assert [samples(sound.source) for sound in found.sounds[::2]] == [100, 200, 300, 400]
    assert sum(len(sound.source) for sound in found.sounds) < 1.5e6
    assert picture(tmp_path / "a.png").sounds == ()
