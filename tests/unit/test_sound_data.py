"""Sources of sound: files of any kind, voices, tones, splits by what is said, files in place of memory."""

import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from ancestral.companding import to_levels
from ancestral.configuration import from_json, to_json
from ancestral.data import (
    PREPARATIONS,
    ImageOptions,
    SoundOptions,
    Sounds,
    load,
    load_data,
    load_recordings,
    load_sound,
    preparation_of,
)
from ancestral.data.tones import RATE, SYMBOL_SAMPLES, SYMBOLS, symbols_of
from ancestral.errors import UserError
from ancestral.spec import Spec

SPLITS = ("train", "validation", "test")
OPTIONS = SoundOptions(length=64)
SPEC = OPTIONS.spec()


def wave(n, hertz=440.0, rate=8000, loud=0.5):
    return (loud * np.sin(2 * np.pi * hertz * np.arange(n) / rate)).astype(np.float32)


def save(path, x, rate=8000, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, x, rate, **options)


def recorded(dataset):
    """All recordings of a data set by their names, ``(T,)``."""
    return {
        name: samples[:, 0]
        for split in SPLITS
        for name, samples in zip(dataset.names[split], dataset.split(split).recordings(), strict=True)
    }


def refused(source, options=OPTIONS, **more):
    with pytest.raises(UserError) as caught:
        load_data(str(source), options, **more)
    return str(caught.value)


@pytest.fixture
def voices(tmp_path):
    """24 sounds of two speakers, and what is in their files."""
    folder, found = tmp_path / "voices", {}
    for i in range(24):
        name = f"{'ada' if i % 2 else 'bob'}/{i:02}.wav"
        found[name] = wave(40 + 5 * i, 300 + 20 * i)
        save(folder / name, found[name], subtype="FLOAT")
    return folder, found


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """What the packages of voices would hold, and the prompts that are there in both voices of one."""
    root = tmp_path_factory.mktemp("share")
    prompts = [f"prompt{i}" for i in range(60)] + [f"digits/{i}" for i in range(20)]
    left_out = ["silence/1", "beep", "ascending-2tone"]
    for number, voice in enumerate(("en_US_f_Allison", "fr_CA_f_June")):
        for i, prompt in enumerate(prompts + left_out):
            path = root / "asterisk" / "sounds" / voice / f"{prompt}.wav"
            save(path, wave(30 + i, 200 + 100 * number + i))
    for i in range(30):
        for speaker in (3, 5) if i else (3,):
            path = root / "gcin-voice" / "ogg" / f"ㄊㄢ{i}" / f"{speaker}.ogg"
            save(path, wave(800, 200 * speaker + i, 44100), 44100)
    return root, prompts


@pytest.fixture
def share(packages, monkeypatch):
    """The prompts of the packages, which are found."""
    root, prompts = packages
    monkeypatch.setenv("ANCESTRAL_SHARE", str(root))
    return prompts


# folders


def test_folders_are_speakers_and_samples_are_those_of_the_files(voices):
    folder, found = voices
    dataset = load_data(str(folder), OPTIONS)
    assert dataset.spec == replace(SPEC, classes=2)
    assert (dataset.spec.rate, dataset.spec.encoding, dataset.spec.shape) == (8000, "mu-law", (1, 64))
    assert dataset.classes == ("ada", "bob")
    samples = recorded(dataset)
    assert samples.keys() == found.keys()
    for name, expected in found.items():
        assert samples[name].tolist() == to_levels(expected, SPEC).tolist()
    for split in map(dataset.split, SPLITS):
        assert isinstance(split, Sounds)
        assert split.silence == 128
        dataset.spec.check(split[:].x, split[:].labels)
    names = dataset.names["train"]
    assert dataset.train.labels.tolist() == [int(name.startswith("bob")) for name in names]
    assert "at 8,000 Hz, mu-law, 256 levels, 2 classes; 21 train (0.0 min)" in repr(dataset)
    assert load_data(str(folder), OPTIONS).fingerprint == dataset.fingerprint
    assert load_data(str(folder), replace(OPTIONS, levels=64)).fingerprint != dataset.fingerprint


def test_all_splits_join_and_are_cut_without_a_copy(voices):
    dataset = load_data(str(voices[0]), OPTIONS)
    whole = dataset.split("all")
    assert (len(whole), whole.samples is dataset.test.samples) == (24, True)
    assert [len(r) for r in whole.recordings()] == [
        len(recorded(dataset)[n]) for n in dataset.names_of("all")
    ]
    assert len(dataset.split("all", 22)) == 22
    few = dataset.split("train", 3)
    assert few.samples is dataset.train.samples
    assert torch.equal(few[:].x, dataset.train[:3].x)


def test_folders_at_the_top_are_splits_and_equal_sounds_stay_out_of_training(tmp_path):
    for split, n in (("train", 6), ("validation", 2), ("test", 2)):
        for i in range(n):
            save(tmp_path / split / f"{i}.flac", wave(50, 500 + 10 * i + len(split)))
    save(tmp_path / "train" / "copy.flac", wave(50, 500 + len("test")))
    dataset = load_data(str(tmp_path), OPTIONS)
    assert [len(dataset.split(name)) for name in SPLITS] == [6, 2, 2]
    assert dataset.duplicates == 1
    assert dataset.made["test"] == "the source's own"


def test_any_rate_and_any_channels_become_one_channel_at_one_rate(tmp_path):
    tone = wave(19200, 500, 192_000)
    save(tmp_path / "eight" / "a.wav", np.stack([tone * k / 4 for k in range(1, 9)], 1), 192_000)
    save(tmp_path / "one" / "a.ogg", wave(44100, 500, 44_100), 44_100)
    save(tmp_path / "one" / "b.flac", wave(800, 500))
    options = SoundOptions(encoding="linear", levels=2**16, length=64)
    sounds, classes = load_recordings(tmp_path, options)
    assert (classes, sounds.labels.tolist(), sounds.lengths.tolist()) == (
        ("eight", "one"),
        [0, 1, 1],
        [800, 8000, 800],
    )
    eight = next(sounds.recordings())[:, 0].double() / 2**15 - 1
    expected = torch.from_numpy(wave(800, 500, loud=0.5 * 4.5 / 4)).double()
    # away from the ends, the passband of the resampler is flat to 1e-4; mp3-like errors would be far larger
    assert (eight - expected)[100:-100].abs().max() < 1e-3


def test_silence_is_cut_off_at_both_ends_alone(tmp_path):
    loud = np.concatenate([wave(1000), np.zeros(3000, np.float32), wave(1000)])
    ends = np.full(2000, 0.004, np.float32)  # -42 dB of the peak
    save(tmp_path / "a.wav", np.concatenate([ends, loud, ends]), subtype="FLOAT")
    (length,) = load_recordings(tmp_path, replace(OPTIONS, trim=True))[0].lengths.tolist()
    # .05 s on each side; the first and the last sample of a sine are as soft as the silence
    assert abs(length - (5000 + 2 * 400)) <= 2
    assert load_recordings(tmp_path, OPTIONS)[0].lengths.tolist() == [9000]


def test_names_that_are_no_text_are_read_too(tmp_path):
    path = tmp_path / "a.wav"
    save(path, wave(50))
    path.rename(tmp_path / b"\xff.wav".decode(errors="surrogateescape"))
    assert load_recordings(tmp_path, OPTIONS)[0].lengths.tolist() == [50]


def test_what_cannot_be_used_is_counted_and_left_out(voices):
    folder, _ = voices
    (folder / "ada" / "text.wav").write_text("no sound")
    (folder / "ada" / "empty.wav").touch()
    save(folder / "ada" / "zero.wav", wave(0))
    save(folder / "bob" / "nan.wav", np.array([0, np.nan, 1], np.float32), subtype="FLOAT")
    sides = np.array([[0, 0], [np.inf, -np.inf], [1, 1]], np.float32)  # whose mean is no number
    save(folder / "bob" / "infinite.wav", sides, subtype="FLOAT")
    save(folder / "bob" / "short.wav", wave(2), 192_000)
    save(folder / "bob" / "slow.wav", wave(9), 10)
    (folder / "bob" / "torn.flac").write_bytes(b"fLaC" + bytes(50))
    dataset = load_data(str(folder), OPTIONS)
    assert sum(len(dataset.split(name)) for name in SPLITS) == 24
    skipped = dict(line.split(": ", 1) for line in dataset.skipped)
    assert skipped == {
        "ada/empty.wav": "not a sound that can be read (an empty file)",
        "ada/text.wav": "not a sound that can be read (Format not recognised)",
        "ada/zero.wav": "has no samples",
        "bob/infinite.wav": "has samples that are NaN or infinite",
        "bob/nan.wav": "has samples that are NaN or infinite",
        "bob/short.wav": "is shorter than a sample at 8,000 Hz",
        "bob/slow.wav": "has a rate of 10 Hz, not 1,000 to 768,000",
        "bob/torn.flac": skipped["bob/torn.flac"],
    }
    assert skipped["bob/torn.flac"].startswith("not a sound that can be read")


def test_folders_without_usable_sounds(tmp_path):
    odd = tmp_path / "odd"
    odd.mkdir()
    (odd / "a.wav").write_text("no sound")
    expected = f"none of the 1 sounds of {odd} can be read (a.wav: not a sound that can be read"
    assert refused(odd).startswith(expected)
    with pytest.raises(UserError, match="none of the 1 sounds"):
        load_recordings(odd, OPTIONS)
    save(odd / "b.wav", wave(9))
    assert "one would be empty; give more sounds that differ" in refused(odd)
    with pytest.raises(UserError, match=r"holds no sounds \(looked for .wav .flac"):
        load_recordings(tmp_path / "nothing", OPTIONS)
    assert refused(odd / "b.wav").startswith("expected a folder of sounds, got the file")


# kinds


def test_a_folder_is_one_of_sounds_if_it_holds_no_image(voices):
    folder, _ = voices
    assert preparation_of(str(folder)) is SoundOptions
    (folder / "ada" / "portrait.png").touch()
    assert preparation_of(str(folder)) is ImageOptions
    assert refused(folder).endswith(
        "give a folder of sounds alone: one that holds images too is one of images"
    )
    expected = "expected data for ImageOptions (images), got tones (sound)"
    assert refused("tones", ImageOptions()).startswith(expected)


def test_options_survive_json_and_fit_a_model():
    options = SoundOptions(rate=16000, encoding="linear", levels=2**16, trim=True, length=100)
    written = to_json(options)
    assert from_json(PREPARATIONS[written["kind"]], written) == options
    assert SoundOptions(trim=True).fitted(options.spec(3)) == options
    with pytest.raises(UserError, match="expected a model of sounds with 1 channel"):
        SoundOptions().fitted(Spec(shape=(1, 8, 8)))
    for wrong in ({"rate": 192_001}, {"rate": 0}, {"levels": 1}, {"levels": 2**16 + 1}, {"length": 0}):
        with pytest.raises(UserError, match=f"expected {next(iter(wrong))}"):
            SoundOptions(**wrong)


# one file


def test_one_file_is_brought_to_what_a_model_takes(tmp_path):
    path = tmp_path / "a.wav"
    save(path, np.stack([wave(1600, 400, 16000)] * 2, 1), 16000)
    x, done = load_sound(path, SPEC)
    assert (x.shape, x.dtype) == ((1, 800), torch.uint8)
    assert done == "2 channels made one, 16,000 Hz resampled to 8,000 Hz"
    save(path, wave(70), subtype="FLOAT")
    x, done = load_sound(path, SPEC)
    assert (x[0].tolist(), done) == (to_levels(wave(70), SPEC).tolist(), "")
    path.write_text("no sound")
    with pytest.raises(UserError, match=r"expected a sound in .*, got: not a sound that can be read"):
        load_sound(path, SPEC)
    with pytest.raises(UserError, match="expected the file of a sound"):
        load_sound(tmp_path / "nothing.wav", SPEC)


def test_without_the_package_that_reads_sounds_it_is_named(voices, tmp_path, monkeypatch):
    save(tmp_path / "fast" / "a.wav", wave(50, rate=16000), 16000)
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(UserError, match=r"expected soxr to resample sounds, got none installed; pip install"):
        load_recordings(tmp_path / "fast", OPTIONS)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    expected = "expected soundfile to read sounds, got none installed; pip install 'ancestral[sound]'"
    assert refused(voices[0]) == expected
    assert len(load_data("tones").train)  # which needs neither


# voices


def test_prompts_are_split_alike_in_every_voice_and_without_beeps(share):
    dataset = load_data("asterisk", OPTIONS)
    assert dataset.classes == ("en", "fr")
    split_of = {}
    for split in SPLITS:
        for name in dataset.names[split]:
            assert split_of.setdefault(name.partition("/")[2], split) == split
    assert set(split_of) == set(share)
    assert sum(len(dataset.split(name)) for name in SPLITS) == 2 * len(share)
    alone = load_data("asterisk:en", OPTIONS)
    assert (alone.spec.classes, alone.train.labels, alone.classes) == (0, None, ())
    assert {n.partition("/")[2]: s for s in SPLITS for n in alone.names[s]} == split_of
    names = dataset.names["train"]
    assert dataset.train.labels.tolist() == [int(name.startswith("fr/")) for name in names]


def test_shares_of_prompts_are_about_those_that_are_asked_for(share):
    half = load_data("asterisk:en", replace(OPTIONS, test=0.5, validation=0.2))
    n = 80
    # of 80 prompts by their hashes: three standard deviations of a binomial count
    assert abs(len(half.test) - 0.5 * n) < 3 * (0.25 * n) ** 0.5
    assert abs(len(half.validation) - 0.1 * n) < 3 * (0.09 * n) ** 0.5


def test_syllables_have_both_speakers_in_one_split(share):
    dataset = load_data("gcin-voice", OPTIONS)
    assert (dataset.classes, dataset.spec.classes) == (("3", "5"), 2)
    for split in SPLITS:
        names = dataset.names[split]
        assert {len(parts) for parts in map(set, zip(names[::2], names[1::2], strict=True))} == {2}
        assert {a.rpartition("/")[0] for a in names[::2]} == {a.rpartition("/")[0] for a in names[1::2]}
        assert dataset.split(split).labels.tolist() == [int(name.endswith("/5")) for name in names]
    assert sum(len(dataset.split(name)) for name in SPLITS) == 2 * 29


def test_voices_that_are_not_there_say_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("ANCESTRAL_SHARE", str(tmp_path))
    assert refused("gcin-voice").endswith("got nothing there; apt-get install gcin-voice")
    assert refused("asterisk:fr").endswith("apt-get install asterisk-core-sounds-fr-wav")
    assert refused("asterisk").endswith("-en-wav asterisk-core-sounds-es-wav asterisk-core-sounds-fr-wav")
    assert refused("asterisk:xx").endswith("got 'xx'; choose from en, es, fr")
    assert refused("asterisk:eng").endswith("got 'eng'; did you mean en?")
    assert refused("tones:high") == "expected tones without more words, got tones:high; write tones"


# tones


def test_tones_are_the_same_on_every_machine():
    dataset = load_data("tones")
    assert sum(len(dataset.split(name)) for name in SPLITS) == 600
    # a fingerprint of integers: it differs only where a sound, a split or the encoding has changed
    assert dataset.fingerprint == "b35cb3b0ad08b7e046d3b703e26601dc4553eb5b73d1afe0ae340792cbbd843d"
    assert dataset.classes == ("bass", "tenor", "alto", "soprano")
    sequences = [{n.partition("/")[2] for n in dataset.names[split]} for split in SPLITS]
    assert not sequences[0] & (sequences[1] | sequences[2])
    assert not sequences[1] & sequences[2]
    for split, names in zip(SPLITS, map(dataset.names.get, SPLITS), strict=True):
        lengths = dataset.split(split).lengths.tolist()
        assert lengths == [SYMBOL_SAMPLES * len(symbols_of(name)) for name in names]
        assert set(Counter(n.partition("/")[2] for n in names).values()) == {4}


def test_symbols_and_voices_of_tones_can_be_heard():
    """A symbol differs from others as heard in the same voice, and voices as heard in the same symbol."""
    dataset = load_data("tones", SoundOptions(encoding="linear", levels=2**16))
    heard = {}
    for name, samples in recorded(dataset).items():
        for j, symbol in enumerate(symbols_of(name)):
            part = samples[j * SYMBOL_SAMPLES :][:SYMBOL_SAMPLES].double() / 2**15 - 1
            halves = part.view(2, -1) * torch.hann_window(SYMBOL_SAMPLES // 2, dtype=torch.float64)
            power = torch.fft.rfft(halves).abs() ** 2
            bands = power[:, 1:].view(2, 32, -1).sum(-1).add(1e-3).log().flatten()
            heard.setdefault((name.partition("/")[0], symbol), []).append(bands)
    assert len(heard) == 4 * len(SYMBOLS)
    means = torch.stack([torch.stack(h[::2]).mean(0) for h in heard.values()])
    right = [
        int(((bands - means) ** 2).sum(-1).argmin()) == i
        for i, h in enumerate(heard.values())
        for bands in h[1::2]
    ]
    assert sum(right) / len(right) > 0.9  # of 48, of which chance finds one in 48
    assert dataset.spec.rate == RATE


# files in place of memory


def test_sounds_that_do_not_fit_into_memory_are_mapped_and_the_same(voices, tmp_path, monkeypatch):
    folder, _ = voices
    (folder / "ada" / "text.wav").write_text("no sound")
    held = load_data(str(folder), OPTIONS)
    monkeypatch.setattr(load, "MEMORY_LIMIT", 200)
    cache = tmp_path / "cache"
    built, again = (load_data(str(folder), OPTIONS, cache) for _ in range(2))
    for dataset in (built, again):
        assert dataset.fingerprint == held.fingerprint
        assert (dataset.names, dataset.skipped, dataset.made) == (held.names, held.skipped, held.made)
        for split in SPLITS:
            expected, got = held.split(split).crops(64), dataset.split(split).crops(64)
            assert torch.equal(got[:].x, expected[:].x)
            assert torch.equal(got[:].labels, expected[:].labels)
    other = load_data(str(folder), replace(OPTIONS, length=7), cache)  # the same file serves
    assert other.fingerprint == held.fingerprint
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1


@pytest.mark.parametrize("damage", ["cut", "gone", "meta", "index"])
def test_a_damaged_file_is_made_again(voices, tmp_path, monkeypatch, damage):
    monkeypatch.setattr(load, "MEMORY_LIMIT", 200)
    cache = tmp_path / "cache"
    expected = load_data(str(voices[0]), OPTIONS, cache)
    (home,) = (path for path in cache.iterdir() if path.is_dir())
    if damage == "cut":
        (home / "samples.bin").write_bytes((home / "samples.bin").read_bytes()[:-1])
    elif damage == "gone":
        (home / "samples.bin").unlink()
    else:
        (home / ("meta.json" if damage == "meta" else "index.npz")).write_text("{")
    assert load_data(str(voices[0]), OPTIONS, cache).fingerprint == expected.fingerprint
    assert (home / "samples.bin").stat().st_size == sum(map(len, recorded(expected).values()))


def test_a_build_that_was_killed_begins_anew_and_leaves_nothing(voices, tmp_path, monkeypatch):
    monkeypatch.setattr(load, "MEMORY_LIMIT", 200)
    cache = tmp_path / "cache"
    torn = cache / ".abc.4194305.tmp"  # of a process that is not there
    torn.mkdir(parents=True)
    (torn / "samples.bin").write_bytes(b"half")
    load_data(str(voices[0]), OPTIONS, cache)
    assert not torn.exists()
    (cache.parent / "file").touch()
    with pytest.raises(UserError, match="expected to keep sounds in"):
        load_data(str(voices[0]), OPTIONS, cache.parent / "file" / "cache")
