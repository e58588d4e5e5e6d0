"""What is done to images before a model sees them."""

from dataclasses import dataclass, replace
from typing import Literal

from ancestral.errors import UserError
from ancestral.spec import Spec


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How images become integers of one shape, and how they are shared out among the splits."""

    size: tuple[int, int] | None = None
    """Height and width that every image is brought to; None keeps the size that all images have."""
    fit: Literal["crop", "stretch"] = "crop"
    """How an image of another aspect ratio is made to fit: crop resizes the shorter side and cuts out the center, stretch distorts."""
    mode: Literal["auto", "gray", "rgb"] = "auto"
    """Channels: gray (1), rgb (3), or auto: gray if all images are stored as gray, else rgb."""
    levels: int = 256
    """Levels of a value, x * levels // 256 of what is stored: 2 binarizes at half; 256 keeps the levels of the source."""
    flip: bool = False
    """Whether training examples are flipped horizontally at random."""
    shift: int = 0
    """Pixels that training examples are shifted by at most, at random; edges are repeated."""
    validation: float = 0.05
    """Share of the training examples held out for validation, where the source has no such split of its own."""
    test: float = 0.1
    """Share of the examples held out for testing, where the source has no such split of its own."""

    def __post_init__(self) -> None:
        if self.size is not None:
            object.__setattr__(self, "size", tuple(self.size))  # JSON gives a list
            if len(self.size) != 2 or min(self.size) < 1:
                raise UserError(
                    f"expected a size of two positive numbers, got {self.size}",
                    "give height and width: --images.size 32 32",
                )
        if not 2 <= self.levels <= 256:
            raise UserError(f"expected 2..256 levels, got {self.levels}", "try 256")
        if self.shift < 0:
            raise UserError(f"expected a shift of 0 or more pixels, got {self.shift}", "try 2")
        for name in ("validation", "test"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(
                    f"expected a {name} share between 0 and 1, got {getattr(self, name)}", "try 0.1"
                )

    def fitted(self, spec: Spec) -> "ImageOptions":
        """These options, and where they leave size, mode or levels open, what brings images to ``spec``.

        Raises:
            UserError: the examples of ``spec`` are no images.
        """
        if len(spec.shape) != 3 or spec.shape[0] not in (1, 3) or spec.levels is None or spec.levels > 256:
            raise UserError(
                f"expected a model of images with 1 or 3 channels to name data for, got one of {spec.shape} with {spec.levels} levels",
                "give the data that it was trained on",
            )
        channels, height, width = spec.shape
        return replace(
            self,
            size=self.size or (height, width),
            mode=("gray" if channels == 1 else "rgb") if self.mode == "auto" else self.mode,
            levels=spec.levels if self.levels == 256 else self.levels,
        )
