"""Evaluate a model on data: a subject, its measurements, their figures."""

import os
import time

import torch

from ancestral.data import Dataset, Preparation
from ancestral.errors import UserError
from ancestral.evaluation.measurement import Examined
from ancestral.evaluation.measurements import MEASUREMENTS
from ancestral.evaluation.sampling import check_seed
from ancestral.evaluation.subject import Subject, Trained, undisturbed
from ancestral.figures import Evaluation
from ancestral.files import write_json
from ancestral.media import write_png
from ancestral.runs import command
from ancestral.taxonomy import title


@undisturbed
@torch.no_grad()
def evaluate(
    model: Trained,
    data: Dataset | str | None = None,
    *,
    split: str = "test",
    importance_samples: int = 0,
    preparation: Preparation | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = False,
    write: bool = True,
) -> Evaluation:
    """The figures of ``model`` on a split of ``data``: means over the examples.

    A class-conditional model is measured as the even mixture of its classes and, where the data have its
    classes, given the labels; the mixture of more than 20 classes, a pass for each, is then left out.

    Args:
        model: a model, a run or its directory, or a Hub name.
        data: a data set or its source; a run's own data if None.
        split: ``train``, ``validation``, ``test`` or ``all``.
        importance_samples: k of the importance-weighted bound; 0 leaves it out.
        preparation: how a source's data are prepared; as in the run, and to the model's spec, if None.
        limit: evaluate the first so many examples only.
        seed: of the noise in bounds.
        device: where to compute; where a model is, else on the CPU, if None.
        progress: show a progress bar.
        write: write ``evaluation.json`` and pictures into the run, if it is a run that is evaluated on the
            whole of its own test split.

    Raises:
        UserError: the data do not fit the model, there is no such split, or the model has no
            importance-weighted bound, or the run cannot be written.
    """
    subject = Subject.find(model, device)
    into = subject.run.path if write and subject.run and writes(data, split, limit) else None
    if into is not None and not os.access(into, os.W_OK):  # asked before the work, not after it
        problem = f"expected to write the figures into {into}, got a folder that cannot be written"
        raise UserError(problem, "leave it as it is: write=False")
    network = subject.model
    network.check_trained()
    if importance_samples:
        network.check_importance_samples(importance_samples)
    dataset = subject.dataset(data, preparation)
    examples = subject.with_own_labels(dataset.split(split, limit), dataset)
    examined = Examined(network, examples, importance_samples, progress)
    started = time.perf_counter()
    results = []
    with torch.random.fork_rng(devices=[]):
        for measurement in MEASUREMENTS:
            if measurement.applies(network):
                torch.manual_seed(check_seed(seed))
                results.append(measurement.measure(examined))
    evaluation = Evaluation(
        model=title(type(network)),
        data=dataset.source,
        split=split,
        examples=len(examples),
        figures=[figure for result in results for figure in result.figures],
        codebooks=[codebook for result in results for codebook in result.codebooks],
        seconds=time.perf_counter() - started,
        command=command(),
    )
    if into is not None:
        write_json(into / "evaluation.json", evaluation.to_json())
        for name, draw in [item for result in results for item in result.pictures.items()]:
            write_png(into / "samples" / f"{name}.png", draw())
    return evaluation


def writes(data: Dataset | str | None, split: str, limit: int | None) -> bool:
    """Whether an evaluation of a run goes into its directory.

    One of a part, or of other data, must not take the place of the run's own.
    """
    return data is None and split == "test" and limit is None
