"""What is evaluated: a trained model, however it is given, and the data that are meant."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ancestral.data import Dataset, ImageOptions, Split, load_data
from ancestral.data.pictures import SPLITS
from ancestral.errors import UserError, check_type
from ancestral.model import Model
from ancestral.runs import Run, load
from ancestral.spec import Spec

Trained = Model | Run | str | Path
"""A model, a run, or what ``load`` takes: a run directory, a model folder or a Hub name."""


@dataclass(frozen=True)
class Subject:
    """A model in evaluation mode, and the run that it is of if it was given as one."""

    model: Model
    run: Run | None

    @classmethod
    def find(cls, trained: Trained, device: str | torch.device | None = None) -> "Subject":
        """The model, loaded if need be, on ``device``; if that is None, where a model is, else on the CPU."""
        if isinstance(trained, Model):
            return cls(trained.eval().to(device or trained.device), None)
        path = trained.path if isinstance(trained, Run) else trained
        check_type(
            path,
            str | Path,
            "a model, a run or the name of one",
            "give a run directory, a model/ folder or a Hub name",
        )
        run = Run.open(path) if (Path(path) / "run.json").is_file() else None
        return cls(load(path, device or "cpu"), run)

    def dataset(self, data: Dataset | str | None, images: ImageOptions | None = None) -> Dataset:
        """The data set or the source ``data``, else the run's own.

        Images of a source are brought to what the model takes: prepared as ``images`` say, else as in the run, and what these leave open
        (size, mode, levels) as the model's spec says.

        Raises:
            UserError: no data are named and there is no run, or the data do not fit the model.
        """
        if images is not None and not isinstance(data, str):
            raise UserError(
                "expected the source of the images to prepare, got none",
                "name it with data, or leave images out",
            )
        if isinstance(data, str):
            dataset = load_data(
                data, (images or (self.run.images if self.run else ImageOptions())).fitted(self.model.spec)
            )
        elif data is not None:
            dataset = data
        elif self.run is not None:
            dataset = self.run.load_data()
        else:
            raise UserError(
                f"expected data, got none, and a {type(self.model).__name__} without its run has none",
                "name them with --data",
            )
        check_fit(self.model.spec, dataset)
        return dataset

    def examples(
        self,
        data: Dataset | Tensor | str | None,
        split: str,
        limit: int | None = None,
        images: ImageOptions | None = None,
    ) -> Split:
        """The first ``limit`` examples of a split of ``data``, or of the examples ``(N, *shape)`` themselves. Raises like ``dataset``."""
        if not isinstance(data, Tensor):
            return take_split(self.dataset(data, images), split, limit)
        self.model.spec.check(data)
        if not len(data):
            raise UserError("expected at least 1 example, got none", "give some")
        return _first(Split(data, None), limit)


def check_fit(spec: Spec, data: Dataset) -> None:
    """Raise UserError unless examples of ``data`` are what a model of ``spec`` was built for."""
    if (data.spec.shape, data.spec.levels) != (spec.shape, spec.levels):
        raise UserError(
            f"expected examples of shape {spec.shape} with {spec.levels} levels, got {data.source} with {data.spec.shape} and "
            f"{data.spec.levels}",
            "use data like those of the training",
        )


def take_split(dataset: Dataset, name: str, limit: int | None = None) -> Split:
    """A split (``all``: one after another), or its first ``limit`` examples. Raises UserError for an unknown name or a limit below 1."""
    if name == "all":
        parts, left = [], limit
        for part in SPLITS:  # cut before they are joined, which brings what is mapped from files into memory
            parts.append(
                getattr(dataset, part) if left is None else _first(getattr(dataset, part), max(left, 1))
            )
            left = None if left is None else left - len(parts[-1])
        labels = [part.labels for part in parts if part.labels is not None]  # a split may have none
        joined = Split(
            torch.cat([part.x for part in parts]), torch.cat(labels) if len(labels) == len(parts) else None
        )
        return _first(joined, limit)
    if name not in SPLITS:
        raise UserError(f"expected a split, got {name}", f"choose from {', '.join(SPLITS)}, all")
    return _first(getattr(dataset, name), limit)


def _first(split: Split, limit: int | None) -> Split:
    if limit is not None and limit < 1:
        raise UserError(f"expected at least 1 example, got {limit}", "ask for more")
    return (
        split
        if limit is None
        else Split(split.x[:limit], None if split.labels is None else split.labels[:limit])
    )
