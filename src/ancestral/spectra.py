"""Spectra of sounds over time: magnitudes, mel bands, and how far two sounds are apart in them.

Everything is differentiable and stays on the device and in the precision of what it is given, but that half
precision, for which there is no Fourier transform everywhere, becomes float32. A sound is taken as silent
before its beginning and after its end, so that one that was padded has the figures of the one that was not.
"""

import math

import torch
from torch import Tensor

from ancestral.errors import UserError

_WINDOW, HOP = 0.025, 0.010
"""Seconds of a frame of speech, and from one to the next."""
_RESOLUTIONS = (0.010, 0.025, 0.050)
"""Seconds of the windows of Parallel WaveGAN: 240, 600 and 1200 samples of 24 kHz."""
_LEAST_POWER = 1e-7
"""Below it powers count as equal: their logarithms differ by any amount."""
_SILENCE = 1e-8
"""The power of a band that counts as silence: 80 dB below amplitude 1."""


def stft_magnitude(x: Tensor, fft: int, hop: int, window: int) -> Tensor:
    """Magnitudes of a short-time Fourier transform with a Hann window, ``(N, F, frames)`` of ``(N, T)``.

    F is ``fft // 2 + 1``, from 0 to half the rate, and frame i is centered at sample ``i * hop``: there are
    ``T // hop + 1`` of them.

    Args:
        x: sounds ``(N, T)``, floats.
        fft: samples of a transform; what the window leaves free of them are zeros.
        hop: samples from one frame to the next.
        window: samples of the window, at most ``fft``.

    >>> wave = torch.sin(torch.arange(64) * 2 * torch.pi * 4 / 16)  # a period takes 4 samples
    >>> stft_magnitude(wave[None], 16, 8, 16)[0, :, 4].argmax()
    tensor(4)
    """
    return _spectrum(x, fft, hop, window).abs()


def mel(frequency: Tensor) -> Tensor:
    """Frequencies in Hz on the mel scale, as HTK has it (Young et al., The HTK Book, section 5.4).

    >>> mel(torch.tensor([0.0, 1000.0])).round()
    tensor([   0., 1000.])
    """
    return 2595.0 * (1 + frequency / 700.0).log10()


def frequency(mel: Tensor) -> Tensor:
    """The frequencies in Hz of places on the mel scale: the inverse of ``mel``."""
    return 700.0 * (10.0 ** (mel / 2595.0) - 1)


def mel_filters(bands: int, fft: int, rate: int, low: float = 0.0, high: float | None = None) -> Tensor:
    """Triangles on the mel scale that sum to 1 where two overlap: ``(bands, fft // 2 + 1)``, float32.

    The peaks are evenly spaced between ``low`` and ``high`` (half the rate if None), both in Hz and outside.

    Raises:
        UserError: a band is so narrow that no frequency of the transform lies in it, or there is no range.

    >>> mel_filters(4, 64, 8000).argmax(1)  # multiples of 125 Hz
    tensor([ 3,  6, 12, 20])
    """
    high = rate / 2 if high is None else high
    if not 0 <= low < high <= rate / 2:
        problem = f"expected frequencies from 0 to {rate / 2:g} Hz, got {low:g} to {high:g} Hz"
        raise UserError(problem, "give a low one below a high one")
    ends = mel(torch.tensor([low, high], dtype=torch.float64))
    spacing = (ends[1] - ends[0]) / (bands + 1)
    places = mel(torch.arange(fft // 2 + 1, dtype=torch.float64) * rate / fft)
    peaks = ends[0] + spacing * torch.arange(1, bands + 1, dtype=torch.float64)
    filters = (1 - (places - peaks[:, None]).abs() / spacing).clamp(min=0)
    # A look at values would cut a compiled step in two.
    if not torch.compiler.is_compiling() and (empty := int((filters.amax(1) == 0).sum())):
        problem = f"expected a frequency in each of {bands} mel bands, got {empty} without: {fft} samples of "
        raise UserError(f"{problem}{rate} Hz have none there", "take fewer bands or a longer transform")
    return filters.float()


def log_mel(
    x: Tensor,
    rate: int,
    bands: int = 80,
    *,
    fft: int | None = None,
    hop: int | None = None,
    window: int | None = None,
    low: float = 0.0,
    high: float | None = None,
) -> Tensor:
    """The logarithm of the power in each mel band over time: ``(N, bands, frames)`` of ``(N, T)``.

    The power is the mean square of what of the sound lies in the band, whatever the transform: bands sum to
    the power of the sound between the first and the last peak. In dB it is 10 / ln 10 times as much. Less
    than 1e-8 (-80 dB) counts as that.

    Args:
        x: sounds ``(N, T)``, floats in [-1, 1].
        rate: samples a second.
        bands: how many.
        fft: samples of a transform; a power of two of at least twice the window if None.
        hop: samples from one frame to the next; 10 ms if None.
        window: samples of the Hann window; 25 ms if None.
        low: the least frequency, in Hz.
        high: the greatest one; half the rate if None.

    Raises:
        UserError: like ``mel_filters``.

    >>> log_mel(torch.zeros(2, 8000), 8000).shape
    torch.Size([2, 80, 101])
    """
    window = _samples(_WINDOW, rate) if window is None else window
    hop = _samples(HOP, rate) if hop is None else hop
    fft = _power_of_two(2 * window) if fft is None else fft
    powers = _powers(x, fft, hop, window)
    # Parseval: over the whole transform they sum to fft times the squares of the windowed sound.
    filters = mel_filters(bands, fft, rate, low, high).to(powers)
    filters = filters * (2.0 / (fft * _hann(window, powers).square().sum()))
    return (filters @ powers).clamp(min=_SILENCE).log()


def mel_cepstra(bands: Tensor, count: int = 13) -> Tensor:
    r"""Cepstral coefficients 1 to ``count`` of log-mel spectra: ``(N, count, frames)`` of ``(N, B, frames)``.

    The cosine transform over the bands, in dB, without coefficient 0, the loudness. It is scaled so that the
    distance of two frames is the mel-cepstral distance (Kubichek, 1993,
    https://doi.org/10.1109/PACRIM.1993.407206), :math:`\frac{10}{\ln 10} \sqrt{2 \sum_k (c_k - c'_k)^2}` of
    amplitudes, which with all coefficients is the root mean square over the bands.

    Args:
        bands: what ``log_mel`` gives.
        count: how many coefficients, less than there are bands.

    >>> mel_cepstra(torch.ones(1, 40, 3)).abs().max() < 1e-4  # loudness alone
    tensor(True)
    """
    size = bands.shape[1]
    middles = torch.arange(size, dtype=torch.float64) + 0.5
    cosines = (torch.pi / size * torch.arange(1, count + 1, dtype=torch.float64)[:, None] * middles).cos()
    return (cosines * (10 / math.log(10) * math.sqrt(2) / size)).to(bands) @ bands


def log_mel_distance(
    x: Tensor, y: Tensor, rate: int, lengths: Tensor | None = None, bands: int = 80
) -> Tensor:
    """How far sounds are apart in ``log_mel``, in dB: ``(N,)`` of ``(N, T)`` each.

    The root mean square over the bands of a frame, and its mean over the frames.

    Args:
        x: sounds ``(N, T)``, floats in [-1, 1].
        y: as many others.
        rate: samples a second.
        lengths: samples of each that count, ``(N,)``; all if None.
        bands: how many.

    >>> x = torch.randn(1, 4000).clamp(-4, 4) / 4
    >>> log_mel_distance(x, x / 10, 8000).round()  # a tenth of the amplitude is 20 dB less
    tensor([20.])
    """
    x, y = _own(x, lengths), _own(y, lengths)
    apart = (10 / math.log(10)) * (log_mel(x, rate, bands) - log_mel(y, rate, bands))
    own = _own_frames(apart, lengths, _samples(HOP, rate))
    return (_norm(apart, 1) * own).sum(1) / (math.sqrt(bands) * own.sum(1))


def multi_resolution_stft_distance(x: Tensor, y: Tensor, rate: int, lengths: Tensor | None = None) -> Tensor:
    r"""How far sounds ``x`` are from ``y`` in short-time spectra of three resolutions: ``(N,)``.

    With magnitudes X and Y, the mean over the resolutions of the spectral convergence and the distance of
    logarithms, :math:`\lVert Y - X \rVert_F / \lVert Y \rVert_F + \mathrm{mean} \lvert \ln Y - \ln X \rvert`
    (Yamamoto et al., Parallel WaveGAN, 2020, https://arxiv.org/abs/1910.11480, equations 4 to 6). Windows of
    10, 25 and 50 ms, a fifth of that from one to the next and transforms of 1.5 windows at least are the
    240, 600 and 1200 samples and the 512, 1024 and 2048 points of that paper's 24 kHz; Jukebox
    (Dhariwal et al., 2020, https://arxiv.org/abs/2005.00341) has the same numbers at 44.1 kHz.

    Args:
        x: sounds ``(N, T)``, floats in [-1, 1].
        y: those that they ought to be.
        rate: samples a second.
        lengths: samples of each that count, ``(N,)``; all if None.

    >>> x = torch.randn(2, 2000)
    >>> multi_resolution_stft_distance(x, x, 8000)
    tensor([0., 0.])
    """
    x, y = _own(x, lengths), _own(y, lengths)
    distances = []
    for seconds in _RESOLUTIONS:
        window = _samples(seconds, rate)
        hop, fft = _samples(seconds / 5, rate), _power_of_two(1.5 * window)
        X, Y = (_powers(sound, fft, hop, window).clamp(min=_LEAST_POWER).sqrt() for sound in (x, y))
        own = _own_frames(X, lengths, hop)
        convergence = _norm((Y - X) * own[:, None], (1, 2)) / _norm(Y * own[:, None], (1, 2))
        logarithms = ((Y.log() - X.log()).abs().mean(1) * own).sum(1) / own.sum(1)
        distances.append(convergence + logarithms)
    return torch.stack(distances).mean(0)


def _spectrum(x: Tensor, fft: int, hop: int, window: int) -> Tensor:
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    weights = _hann(window, x)
    return torch.stft(x, fft, hop, window, weights, center=True, pad_mode="constant", return_complex=True)


def _powers(x: Tensor, fft: int, hop: int, window: int) -> Tensor:
    """The squares of ``stft_magnitude``."""
    return torch.view_as_real(_spectrum(x, fft, hop, window)).square().sum(-1)


def _hann(window: int, like: Tensor) -> Tensor:
    return torch.hann_window(window, dtype=like.dtype, device=like.device)


def _samples(seconds: float, rate: int) -> int:
    return max(1, round(seconds * rate))


def _power_of_two(least: float) -> int:
    return 2 ** max(1, math.ceil(math.log2(least)))


def _norm(values: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    # Its derivative at 0, where a sound is compared with itself, is 0 and not NaN.
    return torch.linalg.vector_norm(values, dim=dim)


def _own(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Sounds with silence in the place of padding."""
    if lengths is None:
        return x
    return x.masked_fill(torch.arange(x.shape[-1], device=x.device) >= lengths.to(x.device)[:, None], 0)


def _own_frames(values: Tensor, lengths: Tensor | None, hop: int) -> Tensor:
    """Which of the frames ``(N, F, frames)`` each sound has without its padding: 1 and 0, ``(N, frames)``."""
    frames = torch.arange(values.shape[-1], device=values.device)
    if lengths is None:
        return torch.ones_like(values[:, 0])
    last = torch.div(lengths.to(values.device), hop, rounding_mode="floor")
    return (frames <= last[:, None]).to(values.dtype)
