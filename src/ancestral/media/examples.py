"""Pictures and files of examples, by the domain of their spec."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from ancestral.columns import named
from ancestral.files import replacing
from ancestral.media import codes, images, sound, table
from ancestral.media.heads import with_heads
from ancestral.media.pixels import Pixels, grid, gutter, write_png
from ancestral.media.sheet import Sheet, write_sheet
from ancestral.media.wav import write_sounds
from ancestral.spec import Spec


def picture(
    spec: Spec,
    x: Tensor,
    *,
    columns: int | None = None,
    names: Sequence[str] = (),
    heads: Sequence[str] = (),
    lengths: Tensor | None = None,
    mark: int | None = None,
) -> Pixels:
    """Examples ``(N, *spec.shape)``, at least one, in one picture.

    Images and code maps stand side by side, sounds are waveforms above spectrograms (many are spectrograms
    alone), and a table is a histogram of each column and the points of each pair.

    Args:
        spec: what an example is.
        x: the examples, on any device.
        columns: how many stand in a row; about as many as there are rows if None. A table has no use for it.
        names: of a table's columns.
        heads: what stands above the columns of all but a table, one each, or above each sound: classes.
        lengths: how many values of each sound are its own, ``(N,)``; all if None.
        mark: a place in time to mark in sounds, a sample's.

    >>> import torch
    >>> picture(Spec(shape=(1, 2, 2), levels=2), torch.tensor([[[[0, 1], [1, 0]]]]))[2:4, 2:4].tolist()
    [[0, 255], [255, 0]]
    """
    if spec.domain == "table":
        return table.picture(spec, x, names)
    if spec.domain == "sound":
        return sound.picture(spec, x, columns, lengths=lengths, heads=heads, mark=mark)
    tiles = to_pixels(x, spec)
    if spec.domain == "codes":
        columns = columns or math.ceil(math.sqrt(len(x) * tiles.shape[1] / tiles.shape[2]))
    sheet = grid(tiles, columns)
    return with_heads(sheet, heads) if heads else sheet


def frames(spec: Spec, x: Tensor) -> list[Pixels]:
    """Examples ``(T, N, *spec.shape)`` as T pictures of N, alike in all but the examples: those of a film."""
    if spec.domain != "image":
        return [picture(spec, examples) for examples in x]
    tiles = to_pixels(x.flatten(0, 1), spec)
    ground = gutter(tiles)
    return [grid(part, between=ground) for part in tiles.reshape(*x.shape[:2], *tiles.shape[1:])]


def comparison(
    spec: Spec,
    originals: Tensor,
    *versions: Tensor,
    columns: int = 8,
    names: Sequence[str] = (),
    series: Sequence[str] = (),
    heads: Sequence[str] = (),
    lengths: Tensor | None = None,
) -> Pixels:
    """Rows of originals, each above the rows of their versions; of a table, all of them over each other.

    Args:
        spec: what an example is.
        originals: examples ``(N, *spec.shape)``, at least one.
        versions: as many examples each (of a table, any number): reconstructions, completions, samples.
        columns: how many originals stand in a row.
        names: of a table's columns.
        series: of tables and sounds, what originals and versions are called.
        heads: of sounds, what stands above each of the originals.
        lengths: how many values of each sound and of its versions are their own, ``(N,)``; all if None.
    """
    if spec.domain == "table":
        return table.comparison(spec, originals, versions, names, series)
    if spec.domain == "sound":
        return sound.comparison(
            spec, originals, versions, columns, lengths=lengths, series=series, heads=heads
        )
    extremes = _extremes(originals)
    tiles = [_tiles(spec, x, extremes) for x in (originals, *versions)]
    if spec.domain == "codes":
        columns = min(columns, max(1, _WIDEST // tiles[0].shape[2]))
    columns = min(columns, len(originals))
    missing = ((0, -len(originals) % columns), *[(0, 0)] * (tiles[0].ndim - 1))
    ground = gutter(tiles[0])
    rows = [np.pad(t, missing, constant_values=ground).reshape(-1, columns, *t.shape[1:]) for t in tiles]
    return grid(np.stack(rows, 1).reshape(-1, *tiles[0].shape[1:]), columns)


def marginals(*tables: Tensor, names: Sequence[str] = (), series: Sequence[str] = ()) -> Pixels:
    """Histograms of the columns of tables ``(N, D)``, at most 100, over each other in colors of their own."""
    return table.marginals(tables, names, series)


def to_pixels(x: Tensor, spec: Spec) -> Pixels:
    """Examples as pictures of one size, ``(N, H, W)`` or, in color, ``(N, H, W, 3)``.

    An image is shown pixel by pixel, and a code as a color. A sound or a row of a table is a strip of gray;
    ``picture`` draws these as people read them.

    >>> import torch
    >>> to_pixels(torch.arange(5).view(1, 1, 1, 5), Spec(shape=(1, 1, 5), levels=5)).tolist()
    [[[0, 64, 128, 191, 255]]]
    """
    return _tiles(spec, x, _extremes(x))


_WIDEST = 1920
"""Pixels of a row of code maps in a comparison, about."""


def _tiles(spec: Spec, x: Tensor, extremes: tuple[float, float]) -> Pixels:
    rows = spec.shape[-2] if len(spec.shape) > 2 else 1
    maps = x.detach().cpu().reshape(len(x), -1, rows, spec.shape[-1])
    if spec.domain == "codes" and spec.levels is not None:
        return codes.tiles(maps.numpy())
    return images.tiles(spec, maps, extremes)


def _extremes(x: Tensor) -> tuple[float, float]:
    """The least and the greatest of the finite values."""
    finite = x[x.isfinite()]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)


def write_examples(
    folder: str | Path,
    name: str,
    x: Tensor,
    spec: Spec,
    labels: Tensor | None = None,
    *,
    kind: Literal["sheet", "files", "npz"] = "sheet",
    names: Sequence[str] = (),
    columns: int | None = None,
    heads: Sequence[str] = (),
    lengths: Tensor | None = None,
) -> Path:
    """Write examples as one picture, as files, or as one ``.npz`` with ``x`` and ``labels``; where they are.

    Of files there is a PNG for each image or its code maps, and a ``.wav`` for each sound (a ``.npy`` if the
    spec has no rate); the rows of a table go into one ``.csv``. Sounds lie beside their picture, too, in a
    folder of its name. Names, columns, heads and lengths are those of ``picture``; an ``.npz`` has
    ``lengths`` if they are given.
    """
    folder = Path(folder)
    if kind == "npz":
        path = folder / f"{name}.npz"
        known = {"x": x, "labels": labels, "lengths": lengths}
        arrays = {name: tensor.cpu().numpy() for name, tensor in known.items() if tensor is not None}
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        return path
    if kind == "sheet":
        pixels = picture(spec, x, columns=columns, names=names, heads=heads, lengths=lengths)
        write_sheet(folder / f"{name}.png", Sheet(pixels, spec, {"": x}, lengths))
        return folder / f"{name}.png"
    if spec.domain == "table":
        return _write_csv(folder / f"{name}.csv", x, names)
    if spec.domain == "sound" and spec.rate is not None:
        return write_sounds(folder / name, spec, {"": x}, lengths)
    digits = len(str(len(x) - 1))
    paths = [folder / name / f"{name}-{i:0{digits}d}" for i in range(len(x))]
    if spec.domain == "sound":
        for path, example in zip(paths, x.cpu().numpy(), strict=True):
            with replacing(path.with_name(f"{path.name}.npy")) as temporary, temporary.open("wb") as file:
                np.save(file, example)
    else:
        for path, pixels in zip(paths, to_pixels(x, spec), strict=True):
            write_png(path.with_name(f"{path.name}.png"), pixels, enlarge=False)
    return folder / name


def _write_csv(path: Path, x: Tensor, names: Sequence[str]) -> Path:
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(named(names, x.shape[1]))
        writer.writerows([[f"{value:.9g}" for value in row] for row in x.tolist()])
    return path
