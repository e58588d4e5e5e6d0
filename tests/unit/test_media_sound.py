"""Sounds are drawn as what is in them, and written as files that play."""

import math
import wave

import numpy as np
import pytest
import torch
from PIL import Image

from ancestral.errors import UserError
from ancestral.media import (
    Sheet,
    comparison,
    picture,
    write_examples,
    write_png,
    write_sheet,
    write_sounds,
    write_wav,
)
from ancestral.media.figure import SERIES
from ancestral.media.spectrogram import RANGE, Pitch, colored, decibels
from ancestral.spec import Spec

MU_LAW = Spec(shape=(1, 400), rate=8000, encoding="mu-law")
LINEAR = Spec(shape=(1, 400), levels=2**16, rate=8000, encoding="linear")


def sine(hertz, length, rate=8000, amplitude=1.0):
    return amplitude * np.sin(np.arange(length) * (2 * np.pi * hertz / rate))


def levels(*waves):
    """Sounds of 16 bits, padded with the loudest value there is."""
    x = torch.full((len(waves), 1, max(map(len, waves))), 2**16 - 1, dtype=torch.int32)
    for i, values in enumerate(waves):
        x[i, 0, : len(values)] = torch.from_numpy(np.rint((values + 1) / 2 * (2**16 - 1)))
    return x


def read(path):
    with wave.open(str(path)) as file:
        assert file.getsampwidth() == 2
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return samples.reshape(-1, file.getnchannels()).T, file.getframerate()


# spectrograms


@pytest.mark.parametrize("rate", [8000, 44100])
@pytest.mark.parametrize("seconds", [0.05, 0.25, 20.0])
def test_a_sine_is_a_line_at_its_pitch(rate, seconds):
    height, hertz = 120, 1000
    drawn = decibels(sine(hertz, int(rate * seconds), rate), rate, height, 90)
    assert drawn.shape == (height, 90)
    row = height - Pitch.of(rate, height).place(np.array([hertz / 1000])).item()
    middle = drawn[:, 5:-5]
    blur = 0.05 / seconds if seconds < 0.25 else 0.0  # the pitch of a moment is not sharp
    assert np.abs(middle.argmax(0) + 0.5 - row).max() <= 1.5 + 3 * blur
    assert np.abs(middle.max(0)).max() < 8, "about 0 dB, as its amplitude is 1; a short frame spreads it"


def test_a_softer_sound_has_fewer_decibels_and_silence_none():
    loud, soft = (decibels(sine(500, 4000, amplitude=a), 8000, 40, 60).max() for a in (1.0, 0.1))
    assert loud - soft == pytest.approx(20)
    assert decibels(np.zeros(4000), 8000, 40, 60).max() < -200


def test_a_click_is_where_it_happens():
    click = np.zeros(8000)
    click[2000] = 1.0
    column = decibels(click, 8000, 40, 100).max(0).argmax()
    assert abs(column - 25) <= 1


@pytest.mark.parametrize("length", [1, 2, 15, 100])
def test_tiny_sounds_have_a_spectrogram(length):
    assert np.isfinite(decibels(np.ones(length), 8000, 50, 70)).all()


def test_the_axis_of_pitches_has_octaves_in_their_places():
    pitch = Pitch.of(8000, 200)
    top = 2595 * math.log10(1 + 4000 / 700)
    places = {text: place for place, text in pitch.ticks(24)}
    assert list(places) == ["0", "0.5", "1", "2", "4"]
    for text, place in places.items():
        assert abs(place - 200 * 2595 * math.log10(1 + float(text) * 1000 / 700) / top) <= 0.5
    for rate in (100, 8000, 44100, 192000):
        assert all(
            b - a >= 24 for (a, _), (b, _) in zip(*[iter(Pitch.of(rate, 88).ticks(24))] * 2, strict=False)
        )


def test_colors_are_lighter_the_louder():
    colors = colored(np.linspace(-RANGE - 20, 0, 50), 0.0).astype(int).sum(-1)
    assert (np.diff(colors) >= 0).all()
    assert colors[0] == colored(np.array([-1000.0]), 0.0).astype(int).sum(-1), "all below is as dark"
    assert colors[-1] > 600


# pictures


def test_padding_is_not_drawn():
    long, short = sine(300, 4000, amplitude=0.5), sine(900, 2000, amplitude=0.5)
    x, lengths = levels(long, short), torch.tensor([4000, 2000])
    drawn = picture(LINEAR, x, lengths=lengths)
    x[1, 0, 2000:] = 7
    assert np.array_equal(drawn, picture(LINEAR, x, lengths=lengths))
    assert not np.array_equal(drawn, picture(LINEAR, x))
    dark = (drawn.astype(int).sum(-1) < 300).any(0)  # as spectrograms are
    assert dark[54 : 54 + 890].all()
    lower = drawn[drawn.shape[0] // 2 + 20 : -60].astype(int)
    assert (lower[:, 54 + 470 : 54 + 880] == 255).all(), "half as long on the same axis"


def test_sounds_that_differ_much_have_axes_of_their_own():
    x = levels(sine(300, 4000), sine(900, 200))
    drawn = picture(LINEAR, x, lengths=torch.tensor([4000, 200]))
    dark = drawn.astype(int).sum(-1) < 500
    assert dark[:, 54 + 880].sum() > 150, "both fill their columns"


def test_a_version_of_another_length_is_drawn_to_scale():
    drawn = comparison(LINEAR, levels(sine(300, 4000)), levels(sine(300, 2000)))
    orange = (drawn[32:] == SERIES[1]).all(-1).any(0)
    blue = (drawn[32:] == SERIES[0]).all(-1).any(0)
    assert np.flatnonzero(blue).max() > 900
    assert 480 < np.flatnonzero(orange).max() < 520


def test_many_sounds_are_spectrograms_alone_and_heads_stand_above_them():
    x = levels(*[sine(300, 400)] * 34)
    few, many = picture(LINEAR, x[:2], columns=2), picture(LINEAR, x, columns=2)
    assert (few == SERIES[0]).all(-1).any()
    assert not (many == SERIES[0]).all(-1).any()
    headed = picture(LINEAR, x[:2], columns=2, heads=["one", "two"])
    assert np.array_equal(headed[60:], few[40:])
    assert (headed[34:54, 54 + 150 : 54 + 300].min(-1) < 128).any()


def test_each_comparison_has_a_head():
    x = levels(*[sine(300, 400)] * 3)  # in two columns
    plain, headed = comparison(LINEAR, x, x), comparison(LINEAR, x, x, heads=["one", "two", "three"])
    assert len(headed) == len(plain) + 40
    assert np.array_equal(headed[56:300], plain[36:280])
    assert np.array_equal(headed[-300:], plain[-300:])
    between = [part[:, 54 + 150 : 54 + 300].min(-1) < 100 for part in (headed[300:-300], plain[280:-300])]
    assert between[0].sum() > between[1].sum(), "letters"


def test_sounds_without_a_rate_are_waveforms():
    spec = Spec(shape=(1, 400), levels=2**16, encoding="linear")
    drawn = picture(spec, levels(sine(10, 400)))
    assert not (drawn.astype(int).sum(-1) < 100).any(), "nothing is black"
    assert (drawn == SERIES[0]).all(-1).any()


def test_versions_are_named():
    x = levels(sine(300, 400))
    plain, named = comparison(LINEAR, x, x), comparison(LINEAR, x, x, series=("a", "b"))
    assert np.array_equal(plain[32:], named[32:])
    assert not np.array_equal(plain[:32], named[:32])


# files


def test_sixteen_bits_are_written_as_they_are(tmp_path):
    x = torch.arange(2**16, dtype=torch.int32).view(1, -1)
    samples, rate = read(write_wav(tmp_path / "a.wav", LINEAR, x))
    assert rate == 8000
    assert np.array_equal(samples[0], np.arange(-(2**15), 2**15))


def test_mu_law_is_expanded(tmp_path):
    x = torch.arange(256, dtype=torch.uint8).view(1, -1)
    samples, _ = read(write_wav(tmp_path / "a.wav", MU_LAW, x))
    scaled = np.arange(256) / 127.5 - 1
    expected = np.sign(scaled) * (256 ** np.abs(scaled) - 1) / 255
    assert np.abs(samples[0] / 32767.5 - expected).max() < 1 / 32767


def test_channels_lengths_and_real_numbers(tmp_path):
    spec = Spec(shape=(2, 5), levels=None, rate=44100)
    x = torch.tensor([[0.0, 0.5, 3.0, -3.0, math.nan], [1.0, -1.0, 0.0, 0.0, 0.0]])
    samples, rate = read(write_wav(tmp_path / "a.wav", spec, x, 4))
    assert rate == 44100
    assert samples.tolist() == [[0, 16383, 32767, -32768], [32767, -32768, 0, 0]]


def test_what_cannot_be_played_is_refused(tmp_path):
    with pytest.raises(UserError, match="a rate"):
        write_wav(tmp_path / "a.wav", Spec(shape=(1, 4)), torch.zeros(1, 4))
    with pytest.raises(UserError, match="expected sounds"):
        write_sounds(tmp_path / "a", Spec(shape=(1, 4, 4)), {"": torch.zeros(1, 1, 4, 4)})
    assert not list(tmp_path.iterdir())


def test_a_sheet_of_sounds_has_them_beside_it_and_no_others(tmp_path):
    waves = [sine(300, n, amplitude=0.5) for n in (400, 300, 200)]
    x, lengths = levels(*waves), torch.tensor([400, 300, 200])
    assert write_examples(tmp_path, "a", x, LINEAR, lengths=lengths) == tmp_path / "a.png"
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["a-0.wav", "a-1.wav", "a-2.wav"]
    for i, values in enumerate(waves):
        samples, _ = read(tmp_path / "a" / f"a-{i}.wav")
        assert np.abs(samples[0] / 32767.5 - values).max() < 1e-4
    (tmp_path / "a" / "mine.wav").touch()
    pixels = comparison(LINEAR, x[:1], x[:1])
    write_sheet(tmp_path / "a.png", Sheet(pixels, LINEAR, {"original": x[:1], "version": x[:1]}, lengths[:1]))
    names = ["a-0-original.wav", "a-0-version.wav", "mine.wav"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    write_sheet(tmp_path / "a.png", pixels)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["mine.wav"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), pixels)


def test_sounds_are_written_as_files_and_arrays(tmp_path):
    x, lengths = levels(*[sine(300, 400)] * 11), torch.arange(11) + 1
    folder = write_examples(tmp_path, "a", x, LINEAR, kind="files", lengths=lengths)
    assert [len(read(folder / f"a-{i:02d}.wav")[0][0]) for i in range(11)] == [*range(1, 12)]
    saved = np.load(write_examples(tmp_path, "a", x, LINEAR, kind="npz", lengths=lengths))
    assert saved["lengths"].tolist() == [*range(1, 12)]


def test_a_plain_picture_is_a_sheet(tmp_path):
    write_sheet(tmp_path / "a.png", np.zeros((960, 4), np.uint8))
    write_png(tmp_path / "b.png", np.zeros((960, 4), np.uint8))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert not (tmp_path / "a").exists()
