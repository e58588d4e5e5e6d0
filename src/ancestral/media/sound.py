"""Sounds as people read them: the waveform, and below it the spectrogram."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ancestral.companding import to_amplitudes
from ancestral.media import spectrogram
from ancestral.media.figure import SERIES, Axis, Color, Figure, names_of
from ancestral.media.letters import shortened
from ancestral.media.pixels import Pixels
from ancestral.media.spectrogram import Pitch
from ancestral.spec import Spec

Wave = npt.NDArray[np.float64]
"""The amplitudes of a sound, ``(C, T)``."""

_WIDTH, _NARROWEST, _GAP = 900, 110, 14
"""Pixels of all sounds of a row, of one at least, and between them."""
_LEFT, _TOP, _RIGHT, _BOTTOM, _TICKS, _HEAD = 54, 36, 16, 50, 24, 20
"""Pixels around the sounds, below those with an axis of their own, and of the words above columns."""
_HEIGHTS = ((1, (56, 220)), (4, (36, 130)), (16, (26, 88)))
"""Of so many sounds above each other at most: pixels of the waveform and of the spectrogram."""
_SMALL = (20, 64)
"""The same of more sounds."""
_SPREAD = 4
"""Times that the longest sound may be as long as the shortest one to have the same axis of time."""
_MARK: Color = SERIES[1]
"""The color of a line that marks a place in time."""


def picture(
    spec: Spec,
    x: Tensor,
    columns: int | None = None,
    *,
    lengths: Tensor | None = None,
    heads: Sequence[str] = (),
    mark: int | None = None,
) -> Pixels:
    """Waveforms and spectrograms of sounds ``(N, C, T)``, row by row; of many sounds spectrograms alone.

    A line marks the place of a sample in all of them, if there is one to mark.
    """
    columns = min(len(x), columns or math.ceil(math.sqrt(len(x) / 4)))
    sounds = [[wave] for wave in waves(spec, x, lengths)]
    return _Drawing(
        spec=spec, stacks=sounds, colors=SERIES[:1], columns=columns, heads=heads, mark=mark
    ).draw()


def comparison(
    spec: Spec,
    originals: Tensor,
    versions: Sequence[Tensor],
    columns: int,
    *,
    lengths: Tensor | None = None,
    series: Sequence[str] = (),
    heads: Sequence[str] = (),
) -> Pixels:
    """Rows of originals, each below its head and above its versions, in colors of their own."""
    columns = min(columns, math.ceil(math.sqrt(len(originals))), 4)
    colors = [SERIES[min(i, len(SERIES) - 1)] for i in range(1 + len(versions))]
    stacks = [*map(list, zip(*(waves(spec, x, lengths) for x in (originals, *versions)), strict=True))]
    names = series or names_of(len(versions))
    return _Drawing(
        spec=spec, stacks=stacks, colors=colors, columns=columns, series=names, heads=heads
    ).draw()


def waves(spec: Spec, x: Tensor, lengths: Tensor | None = None) -> list[Wave]:
    """The amplitudes of each of the sounds ``(N, C, T)``, of which ``lengths`` says what is not padding."""
    own = [x.shape[-1]] * len(x) if lengths is None else lengths.tolist()
    return [wave[:, :length] for wave, length in zip(amplitudes(spec, x), own, strict=True)]


def amplitudes(spec: Spec, x: Tensor) -> npt.NDArray[np.float64]:
    """What the values of sounds stand for: of levels, amplitudes in [-1, 1]."""
    if spec.levels is None:
        return np.nan_to_num(x.detach().cpu().double().numpy(), posinf=0.0, neginf=0.0)
    return to_amplitudes(x.detach().cpu().numpy(), spec)


@dataclass(frozen=True)
class _Panel:
    """Where one channel of a sound is drawn."""

    wave: npt.NDArray[np.float64]
    color: Color
    left: int
    top: int
    width: int
    first: bool
    """Whether it is the first of its row."""


@dataclass(frozen=True, kw_only=True)
class _Drawing:
    """Stacks of a sound and its versions, in columns."""

    spec: Spec
    stacks: list[list[Wave]]
    colors: Sequence[Color]
    """One for each sound of a stack."""
    columns: int
    series: Sequence[str] = ()
    heads: Sequence[str] = ()
    """What stands above columns, or above stacks if there are more."""
    mark: int | None = None

    @cached_property
    def lengths(self) -> list[int]:
        """How long the longest sound of each stack is."""
        return [max(sound.shape[1] for sound in stack) for stack in self.stacks]

    @cached_property
    def apart(self) -> bool:
        """Whether each stack has an axis of time of its own."""
        return max(self.lengths) > _SPREAD * min(self.lengths)

    @cached_property
    def width(self) -> int:
        """Pixels of a column."""
        return max(_NARROWEST, (_WIDTH - _GAP * (self.columns - 1)) // self.columns)

    @cached_property
    def heights(self) -> tuple[int, int]:
        """Pixels of waveforms and of spectrograms; 0 for none."""
        versions, channels = len(self.colors), self.spec.shape[0]
        rows = -(-len(self.stacks) // self.columns) * versions * channels
        wave, spectrum = next((heights for most, heights in _HEIGHTS if rows <= most), _SMALL)
        if self.spec.rate is None:  # nobody knows which pitch is which
            return (wave + spectrum) // 2, 0
        # The colors of waveforms tell versions apart.
        return (0 if versions == 1 and rows > _HEIGHTS[-1][0] else wave), spectrum

    @cached_property
    def sizes(self) -> tuple[int, int, int]:
        """Pixels of the height of a channel, of a sound and of a stack, each with what is below it."""
        channel = sum(height + 2 for height in self.heights if height)
        sound = self.spec.shape[0] * channel + 4
        return channel, sound, len(self.colors) * sound - 4 + _GAP + _TICKS * self.apart

    def corner(self, i: int) -> tuple[int, int]:
        """The left upper corner of stack i."""
        row, column = divmod(i, self.columns)
        heads = 1 + min(row, (len(self.heads) - 1) // self.columns) if self.heads else 0
        return _LEFT + column * (self.width + _GAP), _TOP + _HEAD * heads + row * self.sizes[2]

    def axis(self, i: int) -> Axis:
        """The axis of time of stack i."""
        length = self.lengths[i] if self.apart else max(self.lengths)
        return Axis(0.0, length / (self.spec.rate or 1), self.width)

    def panels(self) -> Iterator[_Panel]:
        """Every channel of every sound."""
        for i, stack in enumerate(self.stacks):
            left, top = self.corner(i)
            filling = self.lengths[i] if self.apart else max(self.lengths)
            for version, (sound, color) in enumerate(zip(stack, self.colors, strict=True)):
                width = max(1, round(self.width * sound.shape[1] / filling))
                for channel, wave in enumerate(sound):
                    down = version * self.sizes[1] + channel * self.sizes[0]
                    yield _Panel(wave, color, left, top + down, width, i % self.columns == 0)

    def draw(self) -> Pixels:
        """All of it."""
        rows = -(-len(self.stacks) // self.columns)
        right, bottom = self.corner(self.columns - 1)[0] + self.width, self.corner(rows * self.columns)[1]
        figure = Figure(right + _RIGHT, bottom - _GAP - _TICKS * self.apart + _BOTTOM)
        figure.title(self._said(), self.series)
        for i, head in enumerate(self.heads[: len(self.stacks)]):
            left, top = self.corner(i)
            text = shortened(head, self.width, 12)
            figure.write(left + self.width // 2, top - _HEAD - 2, text, "ma")
        self._draw_waves(figure)
        if self.heights[1]:
            self._draw_spectra(figure)
        if self.mark is not None:
            self._draw_mark(figure, self.mark)
        for i in range(len(self.stacks)):
            lowest = i + self.columns >= len(self.stacks)
            if self.apart or lowest:
                left, top = self.corner(i)
                bottom = top + self.sizes[2] - _GAP - _TICKS * self.apart
                name = "seconds" if self.spec.rate else "samples"
                figure.below(left, bottom, self.axis(i), name if lowest else "")
        return figure.pixels

    def _draw_waves(self, figure: Figure) -> None:
        height = self.heights[0]
        loudness = Axis(-1.04 * self.loudest, 1.04 * self.loudest, height)
        for panel in self.panels() if height else ():
            figure.frame(panel.left, panel.top, panel.width, height)
            figure.shade(panel.left, panel.top, waveform(panel.wave, loudness, panel.width), panel.color)
            if panel.first and height > 40:
                figure.beside(panel.left, panel.top, loudness)

    def _draw_spectra(self, figure: Figure) -> None:
        """Of all sounds on one scale, so that their colors compare."""
        rate, (wave, height) = self.spec.rate, self.heights
        assert rate is not None
        panels = list(self.panels())
        spectra = [spectrogram.decibels(panel.wave, rate, height, panel.width) for panel in panels]
        quiet = 20 * math.log10(self.loudest) - 50  # silence shows no rounding
        loudest = max(quiet, *(float(spectrum.max()) for spectrum in spectra))
        pitch = Pitch.of(rate, height)
        for panel, spectrum in zip(panels, spectra, strict=True):
            left, top = panel.left, panel.top + (wave + 2 if wave else 0)
            figure.frame(left, top, panel.width, height)
            colors = spectrogram.colored(spectrum, loudest)
            figure.pixels[top : top + height, left : left + panel.width] = colors
            if panel.first:
                figure.beside(left, top, pitch, "kHz")
        spectrogram.key(figure)

    def _draw_mark(self, figure: Figure, mark: int) -> None:
        height = self.sizes[0] - 2
        for panel in self.panels():
            left = panel.left + min(panel.width - 1, round(panel.width * mark / panel.wave.shape[-1]))
            figure.pixels[panel.top : panel.top + height, left] = _MARK

    @cached_property
    def loudest(self) -> float:
        """The amplitude that fills a panel."""
        if self.spec.levels is not None:
            return 1.0
        return max(float(np.abs(wave).max()) for stack in self.stacks for wave in stack) or 1.0

    def _said(self) -> str:
        """How many sounds there are, and how long they are."""
        n, rate = len(self.stacks), self.spec.rate
        count = f"{n:,} {'sounds' if n > 1 else 'sound'}"
        ends = (min(self.lengths), max(self.lengths))
        written = [f"{length / rate:.3g}" if rate else f"{length:,}" for length in ends]
        long = " to ".join(dict.fromkeys(written))
        return f"{count} of {long} s at {rate:,} Hz" if rate else f"{count} of {long} samples"


def waveform(wave: npt.NDArray[np.float64], axis: Axis, width: int) -> npt.NDArray[np.float64]:
    """The share ``(axis.pixels, width)`` to which a line through the values ``(T,)`` covers each pixel."""
    times = np.linspace(0, len(wave) - 1, max(len(wave), 4 * width + 1))
    fine = axis.pixels - axis.place(np.interp(times, np.arange(len(wave)), wave))
    edges = np.linspace(0, len(fine) - 1, width + 1).astype(int)
    upper, lower = (f.reduceat(fine, edges[:-1]) for f in (np.minimum, np.maximum))
    after = fine[edges[1:]]  # so that neighboring columns touch
    upper, lower = np.minimum(upper, after) - 0.6, np.maximum(lower, after) + 0.6
    rows = np.arange(axis.pixels)[:, None]
    return np.clip(np.minimum(lower, rows + 1) - np.maximum(upper, rows), 0, 1)
