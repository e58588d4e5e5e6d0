"""What is evaluated: a trained model, however it is given, and the data that are meant."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from ancestral.batch import Batch
from ancestral.capabilities import Lengthens
from ancestral.data import Dataset, Preparation, Sounds, TableOptions, load_data, preparation_of
from ancestral.data.table import load_rows
from ancestral.errors import UserError, check_type
from ancestral.memory import check_room
from ancestral.model import Model
from ancestral.runs import Run, load
from ancestral.spec import Spec

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", Batch, Sounds)

Trained = Model | Run | str | Path
"""A model, a run, or what ``load`` takes: a run directory, a model folder or a Hub name."""


def undisturbed(function: Callable[P, R]) -> Callable[P, R]:
    """The function; a model that it is given first is afterwards in the mode and on the device it was in."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        model = args[0] if args else kwargs.get("model")
        if not isinstance(model, Model):
            return function(*args, **kwargs)
        device, modes = model.device, [(module, module.training) for module in model.modules()]
        try:
            return function(*args, **kwargs)
        finally:
            for module, training in modes:
                module.training = training
            model.to(device)

    return wrapped


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

    def check_trained(self) -> None:
        """Raise UserError, which says how to mend it, if too few stages were trained for samples."""
        try:
            self.model.check_trained()
        except UserError as error:
            if self.run is None:
                raise
            manifest, missing = self.run.manifest, self.model.untrained
            remedy = f"go on with: {manifest['command']}"
            if not {*missing} <= {*manifest.get("only", manifest["stages"])}:
                source, path = shlex.quote(manifest["data"]["source"]), shlex.quote(str(self.run.path))
                remedy = f"train it: ancestral train {self.run.model_name} --data {source} "
                remedy += f"--stages {' '.join(missing)} --from {path} --out FOLDER"
            raise UserError(error.problem, remedy) from None

    def dataset(self, data: Dataset | str | None, preparation: Preparation | None = None) -> Dataset:
        """The data set or the source ``data``, else the run's own.

        A source's data are brought to what the model takes: prepared as ``preparation`` says, else as in the
        run, and what it leaves open (of images size, mode, levels) as the model's spec says.

        Raises:
            UserError: no data are named and there is no run, or the data do not fit the model.
        """
        check_type(
            preparation, Preparation | None, "a preparation of the data", "write it as ImageOptions(...)"
        )
        if preparation is not None and not isinstance(data, str):
            raise UserError(
                "expected the source of the data to prepare, got none",
                "name it with data, or leave preparation out",
            )
        if isinstance(data, str):
            chosen = preparation or (self.run.preparation if self.run else preparation_of(data)())
            dataset = load_data(data, chosen.fitted(self.model.spec))
        elif data is not None:
            dataset = data
        elif self.run is not None:
            dataset = self.run.load_data()
        else:
            raise UserError(
                f"expected data, got none, and a {type(self.model).__name__} without its run has none",
                "name them with --data",
            )
        if self.model.columns is not None and dataset.columns is not None:
            dataset = dataset.standardized_as(self.model.columns)
        elif dataset.columns is not None and isinstance(data, str):
            problem = f"expected a model that was trained on a table's columns for {data}, got another"
            raise UserError(problem, "train it on a table, or give rows in its units as a Dataset")
        check_fit(self.model.spec, dataset)
        return dataset

    def whole(self, source: str) -> Dataset:
        """A source's examples as in ``dataset``; a table's as they come, in one split.

        Raises like ``dataset``.
        """
        if preparation_of(source) is TableOptions and self.model.columns is not None:
            return load_rows(source, self.model.columns)
        return self.dataset(source)

    def examples(
        self,
        data: Dataset | Batch | Tensor | str | None,
        split: str,
        limit: int | None = None,
        preparation: Preparation | None = None,
    ) -> Batch:
        """The first ``limit`` examples of a split of ``data``, or of the examples ``(N, *shape)`` themselves.

        Sounds are padded to the longest (of a model of one length, they are windows), and have labels only if
        these are the model's. Raises like ``dataset``.
        """
        if not isinstance(data, Batch | Tensor):
            dataset: Dataset[Any] = self.dataset(data, preparation)
            part = dataset.split(split, limit)
            if not isinstance(part, Sounds):
                return part
            taken = self.as_taken(self.with_own_labels(part, dataset))
            return padded(taken) if isinstance(taken, Sounds) else taken[:limit]
        batch = data if isinstance(data, Batch) else Batch(data)
        self.model.spec.check(batch.x, batch.labels, batch.contexts)
        if not len(batch):
            raise UserError("expected at least 1 example, got none", "give some")
        if limit is not None and limit < 1:
            raise UserError(f"expected at least 1 example, got {limit}", "ask for more")
        return batch if limit is None else batch[:limit]

    def as_taken(self, examples: Batch | Sounds) -> Batch | Sounds:
        """Examples as the model takes them: of sounds, to a model of one length, windows."""
        if not isinstance(examples, Sounds) or isinstance(self.model, Lengthens):
            return examples
        return examples.crops(self.model.spec.shape[-1])[:]

    def with_own_labels(self, examples: E, dataset: Dataset[Any]) -> E:
        """Examples of a data set, with labels only if they mean to the model what they mean there."""
        own = dataset.spec.classes == self.model.spec.classes
        if own and self.run is not None:  # other data may mean other things by the same numbers
            own = list(dataset.classes) == self.run.manifest["data"].get("classes")
        return examples if own else examples.without_labels()


def padded(sounds: Sounds) -> Batch:
    """All of some sounds in one batch. Raises UserError for more than the memory holds."""
    size = len(sounds) * int(sounds.lengths.max()) * sounds.samples.element_size()
    check_room(size, f"{len(sounds):,} sounds as long as the longest", "take fewer")
    return sounds[:]


def check_fit(spec: Spec, data: Dataset) -> None:
    """Raise UserError unless examples of ``data`` are what a model of ``spec`` was built for."""
    if (data.spec.rate, data.spec.encoding) != (spec.rate, spec.encoding):
        own, found = (f"{s.rate or 'no rate'} and {s.encoding or 'no encoding'}" for s in (spec, data.spec))
        problem = f"expected sounds of {own}, got {data.source} with {found}"
        raise UserError(problem, "use data like those of the training")
    same = data.spec.shape == spec.shape or (spec.sequential and spec.fits((1, *data.spec.shape)))
    if not same or data.spec.levels != spec.levels:
        raise UserError(
            f"expected examples of shape {spec.shape} with {spec.levels} levels, got {data.source} with "
            f"{data.spec.shape} and {data.spec.levels}",
            "use data like those of the training",
        )
    expected, got = (
        tuple((context.shape, context.levels) for context in s.contexts) for s in (spec, data.spec)
    )
    if expected != got:
        raise UserError(
            f"expected contexts {expected or 'of no kind'}, got {data.source} with {got or 'none'}",
            "use data like those of the training",
        )
