"""Spectra agree with SciPy and with closed forms, and padding counts in none of them."""

import math

import numpy as np
import pytest
import scipy.fft
import torch

from ancestral.errors import UserError
from ancestral.spectra import (
    frequency,
    log_mel,
    log_mel_distance,
    mel,
    mel_cepstra,
    mel_filters,
    multi_resolution_stft_distance,
    stft_magnitude,
)

RATE = 8000


def noise(n=2, length=3000, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, length, generator=generator, dtype=dtype).clamp(-4, 4) / 4


def sine(hertz, length=4000, rate=RATE):
    return torch.sin(torch.arange(length, dtype=torch.float64) * (2 * torch.pi * hertz / rate))[None]


@pytest.mark.parametrize(("fft", "hop", "window"), [(256, 64, 256), (512, 50, 240), (64, 64, 63)])
def test_magnitudes_are_those_of_a_transform_frame_by_frame(fft, hop, window):
    x = noise(1, 1000)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    weights = np.zeros(fft)
    weights[(fft - window) // 2 :][:window] = hann
    padded = np.pad(x[0].numpy(), fft // 2)
    frames = [padded[i * hop :][:fft] * weights for i in range(1000 // hop + 1)]
    expected = np.abs(np.fft.rfft(np.stack(frames))).T
    np.testing.assert_allclose(stft_magnitude(x, fft, hop, window)[0], expected, atol=1e-10)


def test_a_sine_is_in_its_bin():
    magnitudes = stft_magnitude(sine(1000), 256, 64, 256)[0, :, 20]
    assert magnitudes.argmax() == 1000 * 256 / RATE
    # half the sum of the window, and a quarter beside it: the transform of a Hann window
    assert float(magnitudes[32]) == pytest.approx(64)
    assert float(magnitudes[33]) == pytest.approx(32)
    assert float(magnitudes[35]) == pytest.approx(0, abs=1e-9)


def test_powers_sum_to_those_of_the_windowed_sound():
    x, fft = noise(1, 2048), 256
    powers = stft_magnitude(x, fft, 64, fft)[0].square()
    both_sides = powers[0] + 2 * powers[1:-1].sum(0) + powers[-1]  # Parseval
    window = torch.hann_window(fft, dtype=torch.float64)
    padded = torch.nn.functional.pad(x[0], (fft // 2, fft // 2)).unfold(0, fft, 64)
    torch.testing.assert_close(both_sides, fft * (padded * window).square().sum(1))


def test_mel_is_that_of_htk_and_goes_back():
    assert float(mel(torch.tensor(700.0))) == pytest.approx(2595 * math.log10(2), rel=1e-6)
    hertz = torch.linspace(0, 20000, 50, dtype=torch.float64)
    torch.testing.assert_close(frequency(mel(hertz)), hertz)


def test_filters_are_triangles_that_sum_to_one():
    bands, fft = 20, 2048
    filters = mel_filters(bands, fft, RATE, 100, 3000)
    edges = frequency(torch.linspace(*mel(torch.tensor([100.0, 3000.0])), bands + 2)).double().numpy()
    hertz = np.arange(fft // 2 + 1) * RATE / fft
    inside = (hertz >= edges[1]) & (hertz <= edges[-2])
    np.testing.assert_allclose(filters.sum(0)[torch.from_numpy(inside)], 1, atol=1e-6)
    for band, (left, right) in zip(filters, zip(edges, edges[2:], strict=False), strict=True):
        outside = torch.from_numpy((hertz < left - 1e-3) | (hertz > right + 1e-3))
        assert (band[outside] == 0).all()
        assert band.max() > 0.8


def test_bands_that_no_frequency_lies_in_are_refused():
    with pytest.raises(UserError, match="fewer bands"):
        mel_filters(200, 256, RATE)
    with pytest.raises(UserError, match="0 to 4000 Hz"):
        mel_filters(10, 256, RATE, 100, 5000)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 192000])
def test_bands_have_the_power_of_the_sound_at_any_rate(rate):
    quiet, loud = (0.05 * sine(hertz, rate // 4, rate) * factor for hertz, factor in ((500, 1), (2000, 10)))
    bands = log_mel(quiet + loud, rate)[0, :, 12].exp()
    middle = float(mel(torch.tensor(1000.0)) / mel(torch.tensor(rate / 2)) * 81)
    # of an amplitude a, a^2 / 2
    assert float(bands[: round(middle)].sum()) == pytest.approx(0.05**2 / 2, rel=1e-2)
    assert float(bands[round(middle) :].sum()) == pytest.approx(0.5**2 / 2, rel=1e-2)


def test_the_transform_changes_no_power():
    x = noise(1, 8000)
    means = [log_mel(x, RATE, 20, fft=fft)[0].exp().mean(1) for fft in (256, 512, 4096)]
    for other in means[1:]:
        assert float((other / means[0] - 1).abs().max()) < 0.1  # triangles of few frequencies are coarse


def test_distances_of_a_sound_with_itself_are_zero_and_of_a_softer_one_its_decibels():
    x = noise()
    assert torch.equal(log_mel_distance(x, x, RATE), torch.zeros(2, dtype=x.dtype))
    assert torch.equal(multi_resolution_stft_distance(x, x, RATE), torch.zeros(2, dtype=x.dtype))
    torch.testing.assert_close(
        log_mel_distance(x, x / 2, RATE), torch.full((2,), 20 * math.log10(2), dtype=x.dtype)
    )
    # convergence |Y - Y/2| / |Y| = 1/2, and the logarithms are ln 2 apart
    torch.testing.assert_close(
        multi_resolution_stft_distance(x / 2, x, RATE),
        torch.full((2,), 0.5 + math.log(2), dtype=x.dtype),
        atol=1e-3,  # the floor of powers
        rtol=0,
    )


@pytest.mark.parametrize("distance", [log_mel_distance, multi_resolution_stft_distance])
def test_padding_counts_in_no_distance(distance):
    x, y = noise(3, 1700), noise(3, 1700, seed=1)
    lengths = torch.tensor([1700, 641, 1])
    padded = distance(x, y, RATE, lengths)
    for i, length in enumerate(lengths.tolist()):
        alone = distance(x[i : i + 1, :length], y[i : i + 1, :length], RATE)
        torch.testing.assert_close(padded[i : i + 1], alone)


@pytest.mark.parametrize("distance", [log_mel_distance, multi_resolution_stft_distance])
def test_distances_have_the_derivatives_of_their_differences(distance):
    x, y = noise(1, 300), noise(1, 300, seed=1)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(distance(x, y, RATE).sum(), x)
    way = noise(1, 300, seed=2)
    step = 1e-6
    with torch.no_grad():
        change = distance(x + step * way, y, RATE) - distance(x - step * way, y, RATE)
    assert float((slope * way).sum()) == pytest.approx(float(change) / (2 * step), rel=1e-4)


@pytest.mark.parametrize("distance", [log_mel_distance, multi_resolution_stft_distance])
def test_silence_and_equal_sounds_have_finite_derivatives(distance):
    for sound in (torch.zeros(1, 500), noise(1, 500, dtype=torch.float32)):
        x = sound.clone().requires_grad_()
        distance(x, x.detach(), RATE).sum().backward()
        assert x.grad.isfinite().all()


def test_cepstra_are_a_cosine_transform_in_decibels():
    bands = log_mel(noise(), RATE, 20)
    expected = scipy.fft.dct(bands.numpy(), axis=1, norm="ortho")[:, 1:14]
    np.testing.assert_allclose(
        mel_cepstra(bands), 10 / math.log(10) * expected / math.sqrt(20), rtol=1e-6, atol=1e-9
    )


def test_the_distance_of_all_cepstra_is_that_of_the_spectra_without_their_loudness():
    a, b = (log_mel(noise(seed=seed), RATE, 20) for seed in (0, 1))
    decibels = 10 / math.log(10) * (a - b)
    expected = (decibels - decibels.mean(1, keepdim=True)).square().mean(1).sqrt()
    torch.testing.assert_close((mel_cepstra(a, 19) - mel_cepstra(b, 19)).norm(dim=1), expected)


def test_half_precision_becomes_single():
    x = noise(1, 500, dtype=torch.float32)
    half = x.to(torch.bfloat16)
    assert torch.equal(log_mel(half, RATE), log_mel(half.float(), RATE))
