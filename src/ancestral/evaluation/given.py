"""Images that somebody has, to be measured against a data set: a folder, a ``.npz`` file or shards."""

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from ancestral.batch import Batch
from ancestral.data import Dataset, ImageOptions, load_data
from ancestral.errors import UserError
from ancestral.evaluation.bulk import MANIFEST, read_shards
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


def read_examples(path: str | Path, dataset: Dataset) -> Batch:
    """The images, as those of a data set are; with labels where they are in classes of the same names.

    Raises:
        UserError: there are none, or they cannot be brought to what the data set holds.
    """
    path = Path(path)
    if path.suffix == ".npz":
        return _read_npz(path, dataset)
    if (path / MANIFEST).is_file():
        batch = read_shards(path).batch()
        _check_shape(path, tuple(batch.x.shape[1:]), dataset)
        dataset.spec.check(batch.x, batch.labels if dataset.spec.classes else None)
        return batch
    found = load_data(str(path), ImageOptions().fitted(dataset.spec))
    every = found.split("all")
    if len(found.classes) < 2:
        return Batch(every.x)
    if not set(found.classes) <= set(dataset.classes) or every.labels is None:
        got, expected = (", ".join(names[:4]) for names in (found.classes, dataset.classes))
        problem = f"expected images in folders called {expected or 'nothing'} …, got {got} … in {path}"
        raise UserError(problem, f"name them like the classes of {dataset.source}, or use one folder")
    numbers = torch.tensor([dataset.classes.index(name) for name in found.classes])
    return Batch(every.x, labels=numbers[every.labels.long()])


def _read_npz(path: Path, dataset: Dataset) -> Batch:
    """Images ``x`` ``(N, *shape)``, or with channels last, and ``labels`` ``(N,)`` if there are any."""
    check_readable(path)
    try:
        with path.open("rb") as file, np.load(file) as saved:
            check_room(16 * path.stat().st_size, f"the images of {path}", "measure fewer")
            arrays = {name: saved[name] for name in ("x", "labels") if name in saved}
    except (ValueError, EOFError, KeyError, OSError, BadZipFile) as error:
        raise UserError(f"expected arrays x and labels in {path}, got: {error}", "check the file") from None
    if "x" not in arrays:
        raise UserError(f"expected an array x in {path}, got none", "save images (N, C, H, W) as x")
    x = arrays["x"]
    channels, height, width = dataset.spec.shape
    if x.shape[1:] == (height, width, channels) != dataset.spec.shape:
        x = x.transpose(0, 3, 1, 2)
    _check_shape(path, tuple(x.shape[1:]), dataset)
    if x.dtype.kind not in "iu":
        raise UserError(f"expected integers as images in {path}, got {x.dtype}", "save them as uint8")
    images = torch.from_numpy(np.ascontiguousarray(x.astype(np.int64)))
    labels = torch.from_numpy(arrays["labels"].astype(np.int64)) if "labels" in arrays else None
    labels = labels if dataset.spec.classes else None
    dataset.spec.check(images, labels)
    return Batch(images.to(dataset.spec.dtype), labels=labels)


def _check_shape(path: Path, shape: tuple[int, ...], dataset: Dataset) -> None:
    if shape != dataset.spec.shape:
        problem = f"expected images {dataset.spec.shape} as {dataset.source} has, got {shape} in {path}"
        raise UserError(problem, "resize them, or give a folder of image files, which are resized")
