"""Images that somebody has, to be measured against a data set: a folder, a ``.npz`` file or shards."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ancestral.batch import Batch
from ancestral.data import Dataset, ImageOptions, SoundOptions, preparation_of
from ancestral.data.load import load_examples
from ancestral.errors import UserError
from ancestral.evaluation.sharded_samples import read_shards
from ancestral.evaluation.shards import MANIFEST
from ancestral.files import check_readable
from ancestral.hub import CONFIG
from ancestral.memory import check_room


def are_examples(path: object) -> bool:
    """Whether a path is one of images, and not one of a model or a run."""
    if not isinstance(path, str | Path):
        return False
    place = Path(path)
    if place.suffix == ".npz":
        return True
    return place.is_dir() and not any((place / name).exists() for name in ("run.json", CONFIG))


def read_examples(path: str | Path, dataset: Dataset) -> tuple[Batch, Mapping[str, Any]]:
    """The images, as those of a data set are, and what is known of how they were drawn.

    They have labels where they are in classes of the same names, or where a file says so.

    Raises:
        UserError: there are none, or they cannot be brought to what the data set holds.
    """
    path = Path(path)
    if preparation_of(str(path)) is SoundOptions:
        raise UserError(f"expected images to measure, got sounds in {path}", "give images, or a run")
    if path.suffix == ".npz":
        return _read_npz(path, dataset), {"from": str(path)}
    if (path / MANIFEST).is_file():
        return _read_shards(path, dataset)
    batch, classes = load_examples(path.absolute(), ImageOptions().fitted(dataset.spec))
    if len(classes) < 2 or batch.labels is None:
        return Batch(batch.x), {"from": str(path)}
    if not set(classes) <= set(dataset.classes):
        got, expected = (", ".join(names[:4]) for names in (classes, dataset.classes))
        problem = f"expected images in folders called {expected or 'nothing'} …, got {got} … in {path}"
        raise UserError(problem, f"name them like the classes of {dataset.source}, or use one folder")
    numbers = torch.tensor([dataset.classes.index(name) for name in classes])
    return Batch(batch.x, labels=numbers[batch.labels]), {"from": str(path)}


def _read_shards(path: Path, dataset: Dataset) -> tuple[Batch, Mapping[str, Any]]:
    shards = read_shards(path)
    batch, manifest = shards.batch(), shards.manifest
    _check_shape(path, tuple(batch.x.shape[1:]), dataset)
    dataset.spec.check(batch.x, batch.labels if dataset.spec.classes else None)
    if batch.labels is not None and manifest.spec.classes != dataset.spec.classes:
        batch = Batch(batch.x)  # of other classes, by the same numbers
    known = {"from": str(path), "seed": manifest.seed} | manifest.sampling.changes()
    gate = {"keep": manifest.keep, "gate": manifest.gate} if manifest.gate else {}
    return batch, known | gate


def _read_npz(path: Path, dataset: Dataset) -> Batch:
    """Images ``x`` ``(N, *shape)``, or with channels last, and ``labels`` ``(N,)`` if there are any."""
    check_readable(path)
    check_room(16 * path.stat().st_size, f"the images of {path}", "measure fewer")
    try:
        with path.open("rb") as file, np.load(file) as saved:
            arrays = {name: saved[name] for name in ("x", "labels") if name in saved}
    except Exception as error:  # of zip files, of what is in them, of headers: NumPy lists none
        raise UserError(f"expected arrays x and labels in {path}, got: {error}", "check the file") from None
    if "x" not in arrays:
        raise UserError(f"expected an array x in {path}, got none", "save images (N, C, H, W) as x")
    x = arrays["x"]
    channels, height, width = dataset.spec.shape
    if x.shape[1:] == (height, width, channels) != dataset.spec.shape:
        x = x.transpose(0, 3, 1, 2)
    _check_shape(path, tuple(x.shape[1:]), dataset)
    wrong = [array.dtype for array in arrays.values() if array.dtype.kind not in "iu"]
    if wrong:
        raise UserError(f"expected integers in {path}, got {wrong[0]}", "save images as uint8")
    images = torch.from_numpy(np.ascontiguousarray(x.astype(np.int64)))
    labels = torch.from_numpy(arrays["labels"].astype(np.int64)) if "labels" in arrays else None
    labels = labels if dataset.spec.classes else None
    dataset.spec.check(images, labels)
    return Batch(images.to(dataset.spec.dtype), labels=labels)


def _check_shape(path: Path, shape: tuple[int, ...], dataset: Dataset) -> None:
    if shape != dataset.spec.shape:
        problem = f"expected images {dataset.spec.shape} as {dataset.source} has, got {shape} in {path}"
        raise UserError(problem, "resize them, or give a folder of image files, which are resized")
