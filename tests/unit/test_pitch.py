"""Pitches are those that harmonic tones were made with."""

import math

import pytest
import torch

from ancestral.pitch import median_pitch, pitches


def harmonics(hertz, rate, share, seconds=0.4):
    """All harmonics below 3.6 kHz, each so much softer than the one before, their phases spread."""
    t = torch.arange(round(seconds * rate)) / rate
    return sum(
        share**k * torch.sin(2 * math.pi * hertz * (k + 1) * t + k * k) for k in range(int(3600 // hertz))
    )


@pytest.mark.parametrize("rate", [8000, 22050])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 1.0], ids=lambda s: f"harmonics-{s}")
def test_median_of_a_harmonic_tone_is_its_fundamental(rate, share):
    for hertz in (65, 98, 147, 220, 333, 413, 495):
        assert median_pitch(harmonics(hertz, rate, share), rate) == pytest.approx(hertz, rel=0.005)


def test_a_fundamental_that_is_not_there_is_heard():
    t = torch.arange(4000) / 8000
    x = sum(torch.sin(2 * math.pi * 150 * k * t) for k in (3, 4, 5))
    assert median_pitch(x, 8000) == pytest.approx(150, rel=0.005)


def test_a_glide_is_followed_over_time():
    t = torch.arange(8000) / 8000
    x = torch.sin(2 * math.pi * (100 * t + 100 * t**2))  # 100 Hz at first, 300 Hz after a second
    found = pitches(x, 8000)
    assert found.shape == (101,)
    middle = torch.arange(10, 91)
    torch.testing.assert_close(found[middle], 100 + 200 * middle / 100, rtol=0.02, atol=0)


@pytest.mark.parametrize("gain", [1e-3, 1.0])
def test_noise_silence_and_a_constant_have_no_pitch(gain):
    noise = gain * torch.randn(8000, generator=torch.Generator().manual_seed(0))
    assert float((pitches(noise, 8000) > 0).float().mean()) < 0.01
    for x in (torch.zeros(800), torch.full((800,), gain), torch.zeros(1)):
        assert (pitches(x, 8000) == 0).all()
        assert math.isnan(median_pitch(x, 8000))


def test_what_is_soft_beside_the_rest_counts_as_silence():
    x = harmonics(200, 8000, 0.5)
    assert (pitches(torch.cat([x, 0.01 * x]), 8000)[45:] == 0).all()
    assert (pitches(torch.cat([x, 0.1 * x]), 8000)[45:75] > 0).all()
