"""What is done to a source before a model sees it.

Each kind of data has options of its own; a run carries them without knowing which they are.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, Self

from torch import Generator, Tensor

from ancestral.configuration import Configuration, Natural, Range
from ancestral.data.augment import augment
from ancestral.errors import UserError
from ancestral.spec import Spec

Part = Annotated[float, Range(above=0, below=1)]
"""A part of a whole that is neither nothing nor all of it."""


@dataclass(frozen=True, kw_only=True)
class Preparation(Configuration):
    """How examples are shared out among the splits; each kind of data adds how they become arrays.

    By itself it changes no example: it is that of a ``Dataset`` built by hand.
    """

    kind: ClassVar[str] = "own"

    validation: Part = 0.05
    """Share of the training examples held out for validation, where the source has no such split."""
    test: Part = 0.1
    """Share of the examples held out for testing, where the source has no such split."""

    def fitted(self, spec: Spec) -> Self:
        """These options, and where they leave something open, what brings data to ``spec``.

        Raises:
            UserError: no data of this kind are of ``spec``.
        """
        return self

    def augmentation(self) -> Callable[[Tensor, Generator], Tensor] | None:
        """What is done to each batch of training examples ``(N, *shape)``, if anything.

        The function takes the source of its randomness too.
        """
        return None


@dataclass(frozen=True, kw_only=True)
class ImageOptions(Preparation):
    """How images become integers of one shape. What is transparent lies on white."""

    kind: ClassVar[str] = "images"
    size: tuple[int, int] | None = None
    """Height and width that every image is brought to; None keeps the size that all images have."""
    fit: Literal["crop", "stretch"] = "crop"
    """How an image of another aspect ratio is made to fit: crop resizes the shorter side and cuts out the
    center, stretch distorts."""
    mode: Literal["auto", "gray", "rgb"] = "auto"
    """Channels: gray (1), rgb (3), or auto: gray if all images are stored as gray, else rgb."""
    levels: Annotated[int, Range(least=2, most=256)] = 256
    """Levels of a value, x * levels // 256 of what is stored: 2 binarizes at half; 256 keeps the source's."""
    flip: bool = False
    """Whether training examples are flipped horizontally at random; mirror images then count as equal."""
    shift: Natural = 0
    """Pixels that training examples are shifted by at most, at random; edges are repeated."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size is not None:
            size = tuple(self.size) if isinstance(self.size, list | tuple) else (self.size,)
            if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
                got = size if len(size) != 1 else size[0]
                raise UserError(
                    f"expected a size of two positive numbers, got {got}",
                    "give height and width: --images.size 32 32",
                )
            object.__setattr__(self, "size", size)  # JSON gives a list

    def fitted(self, spec: Spec) -> Self:
        """These options, and where they leave size, mode or levels open, what brings images to ``spec``.

        >>> options = ImageOptions(flip=True).fitted(Spec(shape=(1, 28, 28), levels=2))
        >>> options.size, options.mode, options.levels, options.flip
        ((28, 28), 'gray', 2, True)

        Raises:
            UserError: the examples of ``spec`` are no images, or have other channels than an image file.
        """
        if spec.domain != "image" or spec.shape[0] not in (1, 3) or not 2 <= (spec.levels or 0) <= 256:
            raise UserError(
                "expected a model of images with 1 or 3 channels to name data for, "
                f"got one of {spec.shape} with {spec.levels} levels",
                "give the data that it was trained on",
            )
        channels, height, width = spec.shape
        return replace(
            self,
            size=self.size or (height, width),
            mode=("gray" if channels == 1 else "rgb") if self.mode == "auto" else self.mode,
            levels=spec.discrete_levels if self.levels == 256 else self.levels,
        )

    def augmentation(self) -> Callable[[Tensor, Generator], Tensor] | None:
        """Flips and shifts of training images; None if neither is asked for."""
        if not (self.flip or self.shift):
            return None
        return lambda x, generator: augment(x, generator, flip=self.flip, shift=self.shift)


@dataclass(frozen=True, kw_only=True)
class TableOptions(Preparation):
    """How the rows of a table become vectors."""

    kind: ClassVar[str] = "table"
    standardize: bool = True
    """Whether each column is brought to mean 0 and standard deviation 1 of the training split."""

    def fitted(self, spec: Spec) -> Self:
        """These options, which leave nothing open. Raises UserError unless ``spec`` is that of a table."""
        if spec.domain != "table" or spec.levels is not None:
            raise UserError(
                f"expected a model of tables to name a table for, got one of {spec.domain} {spec.shape}",
                "give the data that it was trained on",
            )
        return self


@dataclass(frozen=True, kw_only=True)
class SoundOptions(Preparation):
    """How recordings become integers: one channel, resampled, then encoded."""

    kind: ClassVar[str] = "sound"
    rate: Annotated[int, Range(least=1000, most=192_000)] = 8000
    """Samples a second (Hz) that every recording is brought to."""
    length: Annotated[int, Range(least=1, most=2**24)] = 4096
    """Samples of a training example, a crop of a recording; recordings that are shorter are padded."""
    encoding: Literal["mu-law", "linear"] = "mu-law"
    """What levels stand for: mu-law (ITU-T G.711) has finer ones for soft sounds, linear even ones."""
    levels: Annotated[int, Range(least=2, most=2**16)] = 256
    """Levels of a sample; 65536 with the linear encoding are 16 bits."""
    trim: bool = False
    """Whether silence at both ends is cut off: what stays below -40 dB of the recording's peak, but .05 s."""

    def fitted(self, spec: Spec) -> Self:
        """These options with what ``spec`` says: rate, length, encoding and levels are the model's.

        >>> spec = Spec(shape=(1, 1024), levels=65536, rate=16000, encoding="linear")
        >>> options = SoundOptions(trim=True).fitted(spec)
        >>> options.rate, options.length, options.encoding, options.levels, options.trim
        (16000, 1024, 'linear', 65536, True)

        Raises:
            UserError: the examples of ``spec`` are no sounds, or have more than one channel.
        """
        if spec.domain != "sound" or spec.shape[0] != 1 or not 2 <= (spec.levels or 0) <= 2**16:
            raise UserError(
                "expected a model of sounds with 1 channel to name data for, "
                f"got one of {spec.domain} {spec.shape} with {spec.levels} levels",
                "give the data that it was trained on",
            )
        return replace(
            self,
            rate=spec.rate or self.rate,
            length=spec.shape[-1],
            encoding=spec.encoding or "linear",
            levels=spec.discrete_levels,
        )

    def spec(self, classes: int = 0) -> Spec:
        """What a training example is."""
        return Spec(
            shape=(1, self.length),
            levels=self.levels,
            classes=classes,
            rate=self.rate,
            encoding=self.encoding,
        )


PREPARATIONS: dict[str, type[Preparation]] = {
    cls.kind: cls for cls in (ImageOptions, SoundOptions, TableOptions, Preparation)
}
"""The kinds of data, by what a run and the command line call their options."""
TABLE = "table:"
"""What the name of a source that is a table begins with."""
