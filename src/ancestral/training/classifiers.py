"""The classifiers that measure the samples of a data set: trained once for each, and kept."""

import contextlib
import hashlib
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from ancestral.cache import cache
from ancestral.configuration import to_json
from ancestral.data import Dataset
from ancestral.errors import UserError
from ancestral.measures.classifier import Classifier
from ancestral.training.options import TrainingOptions

Role = Literal["features", "gate", "score"]
"""What a classifier is for. No network has two roles: one that chose samples would praise its choice."""

_SEEDS: dict[Role, int] = {"features": 0, "gate": 1, "score": 2}


def classifier_of(
    dataset: Dataset, role: Role = "features", *, seed: int = 0, progress: bool = False
) -> Classifier:
    """The classifier of a data set for a role, in evaluation mode, on the CPU.

    It is trained if it is not there yet, into ``classifiers`` of the cache (ANCESTRAL_CACHE), and goes on
    where a killed training was.

    Args:
        dataset: images with classes.
        role: the recipe that it has, its shape and its seed.
        seed: adds to the role's own, for several trainings of one role.
        progress: show the training, on the standard error.

    Raises:
        UserError: the data are no images with classes, or there is no folder to keep it in.
    """
    from ancestral.training.begin import train  # noqa: PLC0415 - a training may be measured by a classifier

    recipe = Classifier.recipes[role]
    stage = recipe.stages["training"]
    stages = {"training": replace(stage, batch_size=min(stage.batch_size, len(dataset.train)))}
    options = TrainingOptions(seed=_SEEDS[role] + 1000 * seed, sample_every=0)
    # What it depends on is in its name, so that a later version trains another one.
    settings = json.dumps([to_json(recipe.model), to_json(stages), to_json(options)])
    suffix = hashlib.sha256(settings.encode()).hexdigest()[:8]
    path = _folder() / f"{dataset.fingerprint[:16]}-{role}-{suffix}"
    if not Classifier.is_saved(path / "model"):
        if progress:
            print(f"training a classifier of {dataset.source} ({role}), kept in {path}", file=sys.stderr)
        said = sys.stderr if progress else io.StringIO()
        with contextlib.redirect_stdout(said), torch.enable_grad():  # what asks may compute without gradients
            train(Classifier, data=dataset, out=path, recipe=role, stages=stages, options=options)
    return Classifier.from_pretrained(path / "model")


def _folder() -> Path:
    folder = cache("classifiers")
    if folder is None:
        problem = "expected a folder to keep classifiers in, got no home folder to make it in"
        raise UserError(problem, "name one: ANCESTRAL_CACHE=FOLDER")
    return folder
