"""Which data a command means."""

from pathlib import Path

from ancestral.data import Dataset, ImageOptions, Split, load_data
from ancestral.errors import UserError
from ancestral.runs import Run


def resolve(model: str | Path, data: str | None, images: ImageOptions | None = None) -> Dataset:
    """``data``, prepared as in the run ``model`` if that is one; without ``data``, the run's own.

    Raises:
        UserError: no data are named and ``model`` is no run.
    """
    run = Run.open(model) if (Path(model) / "run.json").is_file() else None
    if data is None:
        if run is None:
            raise UserError(f"expected data, got none, and {model} is no run that has its own", "add --data")
        return run.load_data()
    return load_data(data, images or (run.images if run else ImageOptions()))


def take_split(dataset: Dataset, name: str, limit: int | None = None) -> Split:
    """A split, or its first ``limit`` examples. Raises UserError for an unknown name."""
    if name not in ("train", "validation", "test"):
        raise UserError(f"expected a split, got {name}", "choose from train, validation, test")
    split: Split = getattr(dataset, name)
    return split if limit is None else Split(split.x[:limit], None if split.labels is None else split.labels[:limit])
