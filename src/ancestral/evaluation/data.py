"""Which data a command means."""

from pathlib import Path

from ancestral.data import Dataset, ImageOptions, Split, load_data
from ancestral.errors import UserError
from ancestral.runs import Run
from ancestral.spec import Spec


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


def check_fit(spec: Spec, data: Dataset) -> None:
    """Raise UserError unless examples of ``data`` are what a model of ``spec`` was built for."""
    if (data.spec.shape, data.spec.levels) != (spec.shape, spec.levels):
        raise UserError(
            f"expected examples of shape {spec.shape} with {spec.levels} levels, got {data.source} with {data.spec.shape} and "
            f"{data.spec.levels}",
            "use data like those of the training",
        )


def take_split(dataset: Dataset, name: str, limit: int | None = None) -> Split:
    """A split, or its first ``limit`` examples. Raises UserError for an unknown name or a limit below 1."""
    if name not in ("train", "validation", "test"):
        raise UserError(f"expected a split, got {name}", "choose from train, validation, test")
    if limit is not None and limit < 1:
        raise UserError(f"expected at least 1 example, got {limit}", "ask for more")
    split: Split = getattr(dataset, name)
    return split if limit is None else Split(split.x[:limit], None if split.labels is None else split.labels[:limit])
