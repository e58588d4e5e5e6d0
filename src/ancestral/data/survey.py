"""Find out what shape the images of a source are to have, from their headers, and decode them on the way."""

import math
from collections import Counter
from dataclasses import dataclass

from ancestral.data.decoded import Decoded
from ancestral.data.pictures import Pictures
from ancestral.data.pixels import Target, header, opened
from ancestral.data.preparation import ImageOptions
from ancestral.data.progress import in_chunks
from ancestral.data.source import UnusableError
from ancestral.errors import UserError


@dataclass(frozen=True)
class Survey:
    """What a survey finds."""

    target: Target
    """The shape and levels that every image is brought to."""
    decoded: Decoded | None = None
    """Images that were decoded to it on the way; those that are not there are still to be decoded."""


def survey(pictures: Pictures, options: ImageOptions, *, room: int = 0) -> Survey:
    """Look at the images as far as the options leave open what they are to be brought to.

    Args:
        pictures: the source.
        options: what is to be done to the images.
        room: bytes that decoded images may take. If they fit, each is decoded when it is opened, in the hope
            that all are like the first.

    Raises:
        UserError: no image can be read, or sizes differ and the options name none.
    """
    size, mode = options.size, options.mode
    decoded: Decoded | None = None
    if pictures.array is not None:
        size = size or (pictures.array.shape[2], pictures.array.shape[3])
        mode = "gray" if mode == "auto" else mode
    if size is None or mode == "auto":
        decoded = _like_the_first(pictures, options, room)
        sizes, all_gray = _headers(pictures, decoded)
        if size is None and len(sizes) > 1:
            found = ", ".join(f"{h}x{w} ({count})" for (h, w), count in sizes.most_common(3)) + (
                ", ..." if len(sizes) > 3 else ""
            )
            h, w = sizes.most_common(1)[0][0]
            raise UserError(
                f"expected images of one size in {pictures.source}, "
                f"got {len(sizes)} sizes (height x width): {found}",
                f"pass --images.size H W to bring them to one, such as --images.size {h} {w}",
            )
        size = size or next(iter(sizes))
        mode = ("gray" if all_gray else "rgb") if mode == "auto" else mode
    target = _target(pictures, options, size, gray=mode == "gray")
    return Survey(target, decoded if decoded is not None and decoded.target == target else None)


def _target(pictures: Pictures, options: ImageOptions, size: tuple[int, int], *, gray: bool) -> Target:
    return Target(
        size=size,
        resize=options.size is not None,
        channels=1 if gray else 3,
        fit=options.fit,
        native=pictures.levels,
        levels=min(options.levels, pictures.levels),
    )


def _like_the_first(pictures: Pictures, options: ImageOptions, room: int) -> Decoded | None:
    """Nothing decoded yet, of images that are like the first that can be read; None if they do not fit."""
    for i in range(len(pictures) if room else 0):
        try:
            with opened(pictures, i) as image:
                size, gray = header(image)
        except UnusableError:
            continue
        gray = gray if options.mode == "auto" else options.mode == "gray"
        target = _target(pictures, options, options.size or size, gray=gray)
        return Decoded(pictures, target) if len(pictures) * math.prod(target.shape) <= room else None
    return None


def _headers(pictures: Pictures, decoded: Decoded | None) -> tuple[Counter[tuple[int, int]], bool]:
    """How many images have each size, and whether all are gray; those that are as hoped are decoded."""

    def look(i: int) -> tuple[tuple[int, int], bool] | str:
        try:
            with opened(pictures, i) as image:
                found = header(image)
                if decoded is not None and _fits(*found, decoded.target):
                    decoded.put(i, image)
                return found
        except UnusableError as error:
            return str(error)

    sizes: Counter[tuple[int, int]] = Counter()
    all_gray, reason = True, ""
    for first, results in in_chunks(look, 0, len(pictures), 512, "looking at images"):
        for i, result in enumerate(results, first):
            if isinstance(result, str):
                reason = reason or f"{pictures.names[i]}: {result}"
            else:
                sizes[result[0]] += 1
                all_gray &= result[1]
    if not sizes:
        raise unreadable(pictures, reason)
    return sizes, all_gray


def _fits(size: tuple[int, int], gray: bool, target: Target) -> bool:
    return (gray or target.channels == 3) and (target.resize or size == target.size)


def unreadable(pictures: Pictures, reason: str) -> UserError:
    """The error for a source none of whose images can be used."""
    return UserError(
        f"none of the {len(pictures)} images of {pictures.source} can be read ({reason})", "check the files"
    )
