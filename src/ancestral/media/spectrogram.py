"""Spectrograms: how much of each pitch there is in a sound at each moment, as colors."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ancestral.media.figure import Axis, Figure
from ancestral.media.pixels import Pixels
from ancestral.spectra import frequency, mel, mel_filters

RANGE = 70
"""Decibels from the darkest color to the lightest."""
_WINDOW, _FEWEST = 0.032, 6
"""Seconds of a frame, in which the pitch of a voice shows as lines; a short sound has so many frames at
least, side by side."""
_SHADES = 64
_AT_ONCE = 256
"""Frames that are transformed at once."""
_KEY = 72
"""Pixels that the colors of the key take."""


@dataclass(frozen=True)
class Pitch(Axis):
    """The mel scale from 0 to half a rate, in kHz."""

    @classmethod
    def of(cls, rate: int, pixels: int) -> "Pitch":
        """The axis of sounds of a rate."""
        return cls(0.0, rate / 2000, pixels)

    def place(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """How many pixels from the low end values are."""
        places = mel(torch.from_numpy(np.append(values, self.high)) * 1000).numpy()
        return places[:-1].reshape(np.shape(values)) / places[-1] * self.pixels

    def ticks(self, apart: int) -> list[tuple[int, str]]:
        """0 and octaves of 1 kHz, at least ``apart`` pixels from each other; the highest come first."""
        known = np.array([0.0, *(2.0**power for power in range(-1, 1 + int(math.log2(max(self.high, 1)))))])
        known = known[known <= self.high]
        found: list[tuple[int, str]] = []
        for place, value in zip(self.place(known)[::-1], known[::-1], strict=True):
            if not found or found[-1][0] - place >= apart:
                found.append((round(place), f"{value:.6g}"))
        return found[::-1]


def decibels(wave: npt.NDArray[np.float64], rate: int, height: int, width: int) -> npt.NDArray[np.float64]:
    """The power of a sound ``(T,)`` in mel bands, ``(height, width)``, from high to low.

    Over time it is the mean of what falls into a column. A sine of amplitude 1 has about 0 dB.
    """
    window = max(16, 2 ** math.floor(math.log2(max(16, min(_WINDOW * rate * 1.01, len(wave) / _FEWEST)))))
    hop = max(1, window // 32, min(window // 4, len(wave) // (2 * width)))
    # As many points as the lowest bands need to hold one, and enough for them to look smooth.
    narrowest = float(frequency(mel(torch.tensor(rate / 2.0)) / (height + 1)))
    fft = 2 ** math.ceil(math.log2(max(4 * window, rate / narrowest)))
    hann = torch.hann_window(window, dtype=torch.float64)
    filters = mel_filters(height, fft, rate).double() * (4 * window / fft / float(hann.sum()) ** 2)
    padded = np.pad(wave, window // 2)
    frames = torch.from_numpy(padded).unfold(0, window, hop)
    parts = [_powers(part * hann, fft) @ filters.T for part in frames.split(_AT_ONCE)]
    powers = torch.cat(parts).numpy().T[::-1]
    return 10 * np.log10(np.maximum(_resampled(powers, width), 1e-30))


def _powers(frames: torch.Tensor, fft: int) -> torch.Tensor:
    return torch.view_as_real(torch.fft.rfft(frames, fft)).square().sum(-1)


def _resampled(values: npt.NDArray[np.float64], width: int) -> npt.NDArray[np.float64]:
    """Values ``(height, T)`` as ``(height, width)``: means of what falls into a column, or between values."""
    count = values.shape[1]
    if count > width:
        edges = np.linspace(0, count, width + 1).astype(int)
        return np.add.reduceat(values, edges[:-1], axis=1) / np.diff(edges)
    places = np.linspace(0, count - 1, width)
    before = np.minimum(places.astype(int), max(0, count - 2))
    after = np.minimum(before + 1, count - 1)
    share = places - before
    return values[:, before] * (1 - share) + values[:, after] * share


def colored(decibels: npt.NDArray[np.float64], loudest: float) -> Pixels:
    """Decibels as colors ``(..., 3)``, from ``RANGE`` below the loudest on.

    Their lightness rises evenly (the map magma of Smith & van der Walt, 2015).
    """
    from matplotlib import colormaps  # noqa: PLC0415 - a quarter of a second, which only sounds should pay

    # No eye tells more shades than these, and files are smaller by a third.
    shares = np.rint(np.clip((decibels - loudest) / RANGE + 1, 0, 1) * _SHADES) / _SHADES
    return colormaps["magma"](shares, bytes=True)[..., :3]


def key(figure: Figure) -> None:
    """What the colors mean, in the right upper corner of a figure."""
    right = figure.pixels.shape[1] - 16
    right -= 6 + figure.write(right, 8, "0 dB", "ra")
    ramp = colored(np.linspace(-RANGE, 0, _KEY)[None].repeat(10, 0), 0.0)
    figure.pixels[11:21, right - _KEY : right] = ramp
    figure.write(right - _KEY - 6, 8, f"-{RANGE}", "ra")
