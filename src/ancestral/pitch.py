"""The pitch of voices over time, by autocorrelation.

P. Boersma, Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise ratio of a
sampled sound, Proceedings of the Institute of Phonetic Sciences Amsterdam 17, 1993, pages 97-110.
"""

import math

import torch
from torch import Tensor

LOWEST, HIGHEST = 60.0, 500.0
"""Hz between which a pitch is looked for: those of voices."""
_PERIODS = 3
"""Of the lowest pitch in a window."""
_HOP = 0.010
"""Seconds from one frame to the next."""
_FINER = 8
"""Times as many lags as there are samples: the peaks of a bright voice are narrow."""
_VOICED, _SILENT = 0.45, 0.03
"""The least autocorrelation of a voice, and the share of the sound's peak below which there is silence."""
_OCTAVE = 0.1
"""What an octave more is worth: a sound repeats itself after two periods as well as after one, and a voice
that creaks even better."""


def pitches(x: Tensor, rate: int, low: float = LOWEST, high: float = HIGHEST) -> Tensor:
    """The fundamental frequency of a sound every 10 ms: ``(frames,)`` Hz of ``(T,)``, 0 where none is heard.

    Frame i is centered at sample ``i * hop``, as in a spectrum.

    Args:
        x: a sound ``(T,)``, floats.
        rate: samples a second.
        low: the least frequency, in Hz.
        high: the greatest one.

    >>> wave = torch.sin(torch.arange(4000) * 2 * torch.pi * 200 / 8000)
    >>> pitches(wave, 8000)[10].round()
    tensor(200.)
    """
    x = x.float()
    window, hop = round(_PERIODS * rate / low), max(1, round(_HOP * rate))
    silence = x.new_zeros(window // 2)
    frames = torch.cat([silence, x, silence, silence[:1]]).unfold(0, window, hop)
    frames = frames - frames.mean(1, keepdim=True)
    loud = frames.abs().amax(1) > _SILENT * (x - x.mean()).abs().max()
    weights = torch.hann_window(window, device=x.device)
    own, expected = _autocorrelation(frames * weights), _autocorrelation(weights[None])
    first, last = math.floor(_FINER * rate / high), math.ceil(_FINER * rate / low)
    wanted = slice(max(1, first - 1), last + 2)
    similar = own[:, wanted] / own[:, :1].clamp(min=1e-12) / (expected[:, wanted] / expected[:, :1])
    left, middle, right = similar[:, :-2], similar[:, 1:-1], similar[:, 2:]
    lags = torch.arange(wanted.start + 1, wanted.start + 1 + middle.shape[1], device=x.device) / _FINER
    peaks = (middle > left) & (middle >= right)
    # Each peak with its neighbors is taken as a parabola: it is as high, and where, as that one.
    slope, bend = (left - right) / 2, (2 * middle - left - right).clamp(min=1e-12)
    height, lag = middle + slope.square() / (2 * bend), lags - slope / bend / _FINER
    worth = (height - _OCTAVE * (lags * low / rate).log2()).masked_fill(~peaks, -math.inf)
    best = worth.argmax(1, keepdim=True)
    peak, height, lag = (values.gather(1, best)[:, 0] for values in (peaks, height, lag))
    return torch.where(peak & loud & (height > _VOICED), rate / lag, 0)


def median_pitch(x: Tensor, rate: int) -> float:
    """The median of ``pitches`` over the frames that have one, in Hz; NaN if none has.

    >>> median_pitch(torch.zeros(800), 8000)
    nan
    """
    found = pitches(x, rate)
    heard = found[found > 0]
    return float(heard.median()) if len(heard) else math.nan


def _autocorrelation(frames: Tensor) -> Tensor:
    """Of frames ``(N, W)``, at lags of fractions of a sample, ``(N, lags)``; the first is 0."""
    size = 2 ** math.ceil(math.log2(2 * frames.shape[1]))
    powers = torch.fft.rfft(frames, size).abs().square()
    return torch.fft.irfft(powers, _FINER * size)
