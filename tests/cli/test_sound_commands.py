"""Every command on models of sounds: recordings of several rates and lengths go in, .wav files come out."""

import csv
import math
import wave

import datasets
import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

import ancestral
from ancestral.capabilities import Converts
from ancestral.clips import clips
from ancestral.data import SoundOptions, load_data, load_recordings
from ancestral.evaluation.code_files import read_labeled_codes
from ancestral.files import read_about
from ancestral.models.autoregressive.wavenet import WaveNet
from ancestral.models.latent.sound_vqvae import SoundVQVAE
from ancestral.training import TrainingOptions

RATE = 8000
OPTIONS = SoundOptions(length=64, levels=16, test=0.2)
QUICK = TrainingOptions(device="cpu", sample_every=0, evaluate_every=0)


def stages(*names):
    return {name: {"steps": 2, "batch_size": 4, "compile": False} for name in names}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder of recordings of two speakers, one file of it broken, and a finished run of each model."""
    folder, noise = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)
    forms = [(RATE, "wav", 1), (16000, "flac", 2), (22050, "ogg", 1)]
    for speaker, pitch in (("anna", 220), ("bert", 110)):
        (folder / "voices" / speaker).mkdir(parents=True)
        for i in range(9):
            rate, ending, channels = forms[i % 3]
            times = np.arange(round(rate * (0.01 + 0.004 * i))) / rate
            x = 0.5 * np.sin(2 * np.pi * pitch * times) + 0.05 * noise.standard_normal(len(times))
            file = folder / "voices" / speaker / f"{i}.{ending}"
            soundfile.write(file, np.stack([x] * channels, 1), rate)
    (folder / "voices" / "anna" / "broken.wav").write_bytes(b"RIFFxxxxWAVE")
    soundfile.write(folder / "hello.flac", 0.3 * np.sin(np.arange(320) / 9), 16000)
    data, how = load_data(str(folder / "voices"), OPTIONS), {"options": QUICK}
    ancestral.train(
        WaveNet, data=data, out=folder / "wavenet", config=WaveNet.Config.tiny(), stages=stages("training"),
        **how,
    )  # fmt: skip
    ancestral.train(
        SoundVQVAE, data=data, out=folder / "vqvae", config=SoundVQVAE.Config.tiny(),
        stages=stages("tokenizer", "prior"), **how,
    )  # fmt: skip
    return folder


@pytest.fixture
def said(call):
    """A command that succeeds, and what it prints."""

    def give(line):
        status, output, errors = call(line)
        assert (status, errors) == (0, "")
        return output

    return give


def voices(runs, split="test"):
    data = load_data(str(runs / "voices"), OPTIONS)
    return data.split(split), data.names_of(split)


def written(folder):
    """How many samples each .wav of a sheet has."""
    lengths = []
    for path in clips(folder).values():
        with wave.open(str(path)) as file:
            assert file.getframerate() == RATE
            lengths.append(file.getnframes())
    return lengths


# sample


@pytest.mark.parametrize("name", ["wavenet", "vqvae"])
def test_samples_are_as_long_as_asked_for(said, tmp_path, name):
    output = said(f"sample RUNS/{name} -n 3 --seconds 0.0125 --labels anna bert --out .")
    drawn = "samples-seed0-0.0125s-classanna-bert"
    assert output == f"{drawn}.png\n{drawn}/*.wav\n"
    assert written(tmp_path / drawn) == [100] * 3
    said(f"sample RUNS/{name} -n 2 --seconds .00975 --format npz --out .")
    assert np.load("samples-seed0-0.00975s.npz")["x"].shape == (2, 1, 78)  # no multiple of the stride
    said(f"sample RUNS/{name} -n 2 --out .")
    assert written(tmp_path / "samples-seed0") == [64] * 2


@pytest.mark.parametrize("name", ["wavenet", "vqvae"])
def test_samples_of_python_shards_and_files_are_the_same(said, runs, tmp_path, name):
    x, labels = ancestral.sample(runs / name, 3, ["bert"], seconds=0.00975, seed=3)
    said(f"sample RUNS/{name} -n 3 --seconds .00975 --labels bert --seed 3 --format npz --out .")
    saved = np.load(tmp_path / "samples-seed3-0.00975s-classbert.npz")
    assert np.array_equal(saved["x"], x.numpy())
    assert saved["labels"].tolist() == labels.tolist() == [1, 1, 1]
    said(f"sample RUNS/{name} -n 3 --seconds .00975 --format shards --out shards")
    shards = ancestral.read_shards("shards")
    assert shards.batch().x.shape == (3, 1, 78)
    assert "--seconds 0.00975" in shards.manifest.command(tmp_path)


def test_a_longer_wavenet_begins_as_a_shorter_one(runs):
    model = ancestral.load(runs / "wavenet")
    uniforms = torch.rand(2, 1, 100, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1])
    long = model.at_length(100).quantile(uniforms, labels)
    assert torch.equal(long[..., :64], model.quantile(uniforms[..., :64], labels))


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e300", "1e-9", "200000"])
def test_nonsense_for_seconds_is_one_line(call, seconds):
    status, output, errors = call(f"sample RUNS/wavenet -n 1 --seconds={seconds}")
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert "expected" in errors


# complete


def test_a_file_is_continued(said, runs, tmp_path):
    output = said("complete RUNS/wavenet --prefix RUNS/hello.flac --seconds .03 -n 2 --labels bert --out .")
    assert output.splitlines() == [
        f"{runs}/hello.flac: 16,000 Hz resampled to 8,000 Hz",
        "continuations-hello-seed0-0.03s-bert.png",
        "continuations-hello-seed0-0.03s-bert/*.wav",
    ]
    folder = tmp_path / "continuations-hello-seed0-0.03s-bert"
    assert written(folder) == [240] * 2
    prefix, _ = ancestral.data.load_sound(runs / "hello.flac", ancestral.load(runs / "wavenet").spec)
    sounds = ancestral.continue_sound(runs / "wavenet", prefix, 0.03, 2, ["bert"])
    assert prefix.shape == (1, 160)
    assert (sounds[..., :160] == prefix).all()
    assert not torch.equal(sounds[0], sounds[1])
    first = [soundfile.read(path)[0] for path in clips(folder).values()]
    assert np.array_equal(first[0][:160], first[1][:160])


def test_a_continuation_follows_from_its_beginning(runs):
    """Drawn with the same noise, it is what the stream gives after that beginning."""
    model = ancestral.load(runs / "wavenet")
    prefix = torch.randint(16, (1, 20), generator=torch.Generator().manual_seed(1))
    found = ancestral.continue_sound(model, prefix, 30 / RATE, labels=["anna"], seed=5)
    uniforms = torch.rand(1, 1, 30, generator=torch.Generator().manual_seed(5))
    stream = model.at_length(30).stream(1, torch.tensor([0]))
    for i in range(30):
        value = stream.conditional().quantile(uniforms[..., 0, i])
        stream.push(prefix[None, 0, i : i + 1][:, 0] if i < 20 else value)
    assert found[0, 0, :20].tolist() == prefix[0].tolist()
    assert found[0, 0, 20:].tolist() == stream.x[0, 0, 20:].tolist()


def test_a_sheet_marks_where_the_beginning_ends():
    spec = ancestral.Spec(shape=(1, 64), rate=RATE)
    x = torch.full((1, 1, 64), 128)
    marked, plain = (ancestral.media.picture(spec, x, mark=mark) for mark in (32, None))
    columns = (marked != plain).any(2).any(0).nonzero()[0]
    assert len(columns) == 1
    left, right = 54, 54 + 900  # of what is drawn
    assert columns[0] == (left + right) // 2


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("", "expected the beginning of a sound, got none"),
        ("--prefix RUNS/hello.flac --seconds .01", "expected a prefix shorter than 0.01 s, got 0.02 s"),
        ("--prefix RUNS/hello.flac --seconds .02", "expected a prefix shorter than 0.02 s, got 0.02 s"),
        ("--prefix RUNS/hello.flac --rows 2", "expected no --rows for a model of sounds"),
        ("--prefix RUNS/hello.flac --labels carl", "expected a class of the model, got carl"),
        ("--prefix RUNS/hello.flac -n 0", "expected at least 1 continuation, got 0"),
        ("--prefix RUNS/voices/anna/broken.wav", "expected a sound in"),
        ("--prefix nothing.wav", "expected the file of a sound"),
    ],
)
def test_mistakes_with_a_prefix_are_one_line(call, options, problem):
    status, _, errors = call(f"complete RUNS/wavenet {options}")
    assert (status, errors.count("\n")) == (2, 1)
    assert problem in errors


# tokenize and detokenize


def test_codes_of_sounds_go_out_and_come_back(said, runs, tmp_path):
    speed = "codes at 2000 Hz, 4,000 bits/s"
    sounds, names = voices(runs)
    model, longest = ancestral.load(runs / "vqvae"), -(-int(sounds.lengths.max()) // 4)
    shown = f"codes.safetensors: ({len(sounds)}, 1, {longest}) uint8; {speed}\n"
    assert said("tokenize RUNS/vqvae --split test --out codes.safetensors") == shown
    assert (
        said("tokenize RUNS/vqvae --split test --out codes") == f"codes: test {len(sounds)} sounds; {speed}\n"
    )
    file, folder = (read_labeled_codes(tmp_path / name) for name in ("codes.safetensors", "codes"))
    rows = datasets.load_dataset(str(tmp_path / "codes"), cache_dir=str(tmp_path / "cache"))["test"]
    assert rows["name"] == names
    assert rows["length"] == sounds.lengths.tolist() == file.lengths.tolist() == folder.lengths.tolist()
    assert torch.equal(file.levels[0], folder.levels[0])
    assert torch.equal(file.labels, folder.labels)
    for i, length in enumerate(sounds.lengths.tolist()):
        (expected,) = model.tokenize(sounds[i : i + 1].x)
        assert rows[i]["level0"] == expected[0].tolist()
        assert file.levels[0][i, 0, : -(-length // 4)].tolist() == expected[0, 0].tolist()
    for source in ("codes.safetensors", "codes"):
        assert said(f"detokenize RUNS/vqvae {source} --out back") == "back/codes.npz\n"
        saved = np.load("back/codes.npz")
        assert saved["lengths"].tolist() == sounds.lengths.tolist()
        for i, length in enumerate(sounds.lengths.tolist()):
            one = sounds[i : i + 1]
            assert saved["x"][i, :, :length].tolist() == model.convert(one.x, one.labels)[0].tolist()
            assert (saved["x"][i, :, length:] == 8).all()
    said("detokenize RUNS/vqvae codes --n 2 --format files --out back")
    assert written(tmp_path / "back" / "codes") == sounds.lengths[:2].tolist()
    said("detokenize RUNS/vqvae codes --format shards --out back")
    assert np.array_equal(np.load("back/codes-decoded/shard-00000.npz")["x"], saved["x"])
    levels = {"level0": file.levels[0]}
    save_file(levels, "plain.safetensors")
    said("detokenize RUNS/vqvae plain.safetensors")
    assert np.load("plain.npz")["x"].shape == (len(sounds), 1, 4 * longest), "whole codes"


def test_a_damaged_shard_of_sounds_is_made_anew(said, call, runs, tmp_path):
    said("tokenize RUNS/vqvae --out codes")
    shard = tmp_path / "codes/data/train-00000-of-00001.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    status, _, errors = call("detokenize RUNS/vqvae codes")
    assert (status, errors.count("\n")) == (2, 1)
    said("tokenize RUNS/vqvae --out codes")
    assert shard.read_bytes() == whole


def test_labels_of_other_data_name_no_voices(said, runs):
    maps = torch.zeros(1, 1, 5, dtype=torch.uint8)
    ancestral.write_codes("other.safetensors", (maps,), torch.tensor([0]), {"classes": ["zoe", "anna"]})
    ancestral.write_codes("own.safetensors", (maps,), torch.tensor([0]), {"classes": ["anna", "bert"]})
    said("detokenize RUNS/vqvae other.safetensors")
    said("detokenize RUNS/vqvae own.safetensors")
    model = ancestral.load(runs / "vqvae")
    assert isinstance(model, Converts)
    assert np.array_equal(np.load("other.npz")["x"], model.decode((maps,)).numpy())
    assert np.array_equal(np.load("own.npz")["x"], model.decode((maps,), torch.tensor([0])).numpy())


@pytest.mark.parametrize(
    ("lengths", "problem"),
    [([21], "expected lengths of 1..20 samples, got 21"), ([0], "got 0..0"), ([4, 4], "expected an integer")],
)
def test_lengths_that_are_none_of_the_codes(call, lengths, problem):
    save_file({"level0": torch.zeros(1, 1, 5).byte(), "lengths": torch.tensor(lengths)}, "codes.safetensors")
    status, _, errors = call("detokenize RUNS/vqvae codes.safetensors")
    assert (status, errors.count("\n")) == (2, 1)
    assert problem in errors


# reconstruct, score, certify, evaluate, compare


def test_reconstructions_are_of_their_own_length_and_voice(said, runs, tmp_path):
    sounds, _ = voices(runs)
    output = said("reconstruct RUNS/vqvae --out . --seconds .02 -n 2")
    lengths = sounds.lengths[:2].clamp(max=160).tolist()
    cut = int((sounds.lengths[:2] > 160).sum())
    assert output.splitlines()[0] == "reconstructions.png"
    assert (f"({cut} of the sounds are longer" in output) == (cut > 0)
    assert written(tmp_path / "reconstructions") == [n for n in lengths for _ in range(2)]
    x, versions = ancestral.reconstruct(runs / "vqvae", n=2)
    model = ancestral.load(runs / "vqvae")
    for i, length in enumerate(sounds.lengths[:2].tolist()):
        one = sounds[i : i + 1]
        assert torch.equal(x[i, :, :length], one.x[0])
        assert torch.equal(versions[i, :, :length], model.convert(one.x, one.labels)[0])


@pytest.mark.parametrize("name", ["wavenet", "vqvae"])
def test_whole_recordings_are_scored_in_bits_a_sample(said, runs, tmp_path, name):
    sounds, names = voices(runs)
    output = said(f"score RUNS/{name} --out scores.csv")
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == names
    assert list(rows[0]) == ["name", "log_likelihood", "bits_per_sample", "samples"]
    model, bits = ancestral.load(runs / name), 0.0
    for i, row in enumerate(rows):
        one = sounds[i : i + 1]
        with torch.no_grad():
            nats = float(model.log_likelihood(one.without_labels()))
        assert float(row["log_likelihood"]) == pytest.approx(nats, rel=1e-6)
        expected = -nats / math.log(2) / int(sounds.lengths[i])
        assert float(row["bits_per_sample"]) == pytest.approx(expected, rel=1e-6)
        bits -= nats / math.log(2)
    assert f"{len(sounds)} sounds, {bits / int(sounds.lengths.sum()):.4f} bits/sample" in output


def test_a_network_of_sounds_is_certified_at_a_shorter_length(said, call):
    output = said("certify RUNS/wavenet --trials 1 --length 24 --out .")
    assert "no output sees itself or the future" in output
    assert "(of 24 values, where an example has 64: --length tries more)" in output
    output = said("certify RUNS/vqvae --trials 1 --length 14 --out .")
    assert "(of 12 values, where an example has 64: --length tries more)" in output  # 3 whole codes
    assert call("certify RUNS/wavenet --length 1")[0] == 2


def test_a_folder_is_evaluated_whose_broken_file_is_left_out(said, runs):
    output = said("evaluate RUNS/wavenet --data RUNS/voices --split all")
    assert "18 examples" in output
    assert "bits/sample" in output
    sounds, classes = load_recordings(runs / "voices", OPTIONS)
    assert (len(sounds), classes) == (18, ("anna", "bert"))


def test_two_runs_are_compared_in_bits_a_sample(said, runs):
    said("evaluate RUNS/wavenet")
    line = next(line for line in said("compare RUNS/wavenet RUNS/wavenet").splitlines() if "bits" in line)
    assert line.startswith("negative log-likelihood")
    assert line.endswith("bits/sample")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("evaluate RUNS/wavenet --measures samples", "got sounds; choose from likelihood"),
        ("evaluate RUNS/wavenet --measures columns", "got WaveNet; choose from likelihood"),
        ("evaluate RUNS/vqvae --measures score", "got sounds; choose from codes, spectra"),
        ("tokenize RUNS/wavenet --out codes", "train a tokenizer: ancestral train vqvae-sound"),
        ("tokenize RUNS/vqvae --out codes.npy", "expected .safetensors for codes of sounds"),
        ("detokenize RUNS/vqvae none", "expected the folder or file of codes, got none; check the path"),
        ("detokenize RUNS/wavenet none", "train a tokenizer"),
        ("sample RUNS/wavenet --keep .5", "expected a model of images for --keep, got one of sound"),
        ("reconstruct RUNS/vqvae --data ./none", "there is no folder ./none"),
        ("reconstruct RUNS/vqvae --data digits", "(sound), got digits (images); name other data"),
        ("complete RUNS/vqvae --prefix RUNS/hello.flac", "ancestral train wavenet"),
        ("reconstruct RUNS/wavenet", "expected a model that reconstructs, got WaveNet"),
        ("reconstruct RUNS/vqvae --seconds nan", "expected seconds above 0, got nan"),
        ("sample RUNS/wavenet --interpolate 3 --seconds 1", "expected no seconds for a film"),
    ],
)
def test_mistakes_are_one_line(call, line, problem):
    status, output, errors = call(line)
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert problem in errors


def test_safetensors_say_how_codes_lie_in_time(said, tmp_path):
    said("tokenize RUNS/vqvae --split test --out codes.safetensors")
    about = read_about(tmp_path / "codes.safetensors")
    assert (about["rate"], about["strides"]) == ("8000", "[4]")
    assert load_file("codes.safetensors")["lengths"].dtype == torch.int64
