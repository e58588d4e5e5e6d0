"""Find out, from the headers alone, what shape the images of a source are to have."""

from collections import Counter

from ancestral.data.pictures import Pictures
from ancestral.data.pixels import Target, UnusableError, header, opened
from ancestral.data.preparation import ImageOptions
from ancestral.data.progress import in_chunks
from ancestral.errors import UserError


def survey(pictures: Pictures, options: ImageOptions) -> Target:
    """The shape and levels that every image is brought to.

    Raises:
        UserError: no image can be read, or sizes differ and the options name none.
    """
    size, mode = options.size, options.mode
    if pictures.array is not None:
        size = size or (pictures.array.shape[2], pictures.array.shape[3])
        mode = "gray" if mode == "auto" else mode
    if size is None or mode == "auto":
        sizes, all_gray = _headers(pictures)
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
    return Target(
        size=size,
        resize=options.size is not None,
        channels=1 if mode == "gray" else 3,
        fit=options.fit,
        native=pictures.levels,
        levels=min(options.levels, pictures.levels),
    )


def _headers(pictures: Pictures) -> tuple[Counter[tuple[int, int]], bool]:
    def look(i: int) -> tuple[tuple[int, int], bool] | str:
        try:
            with opened(pictures, i) as image:
                return header(image)
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


def unreadable(pictures: Pictures, reason: str) -> UserError:
    """The error for a source none of whose images can be used."""
    return UserError(
        f"none of the {len(pictures)} images of {pictures.source} can be read ({reason})", "check the files"
    )
