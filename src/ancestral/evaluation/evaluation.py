"""Evaluate a model on data: a subject, its measurements, their figures; and samples beside real examples."""

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ancestral.capabilities import Decodes, Tokenizer
from ancestral.data import Dataset, Preparation, load_data, preparation_of
from ancestral.errors import UserError, nearest
from ancestral.evaluation.extractors import Features
from ancestral.evaluation.given import are_examples
from ancestral.evaluation.measurement import Examined, Result
from ancestral.evaluation.measurements import MEASUREMENTS
from ancestral.evaluation.quality import QUALITY
from ancestral.evaluation.quality.compared import Compared
from ancestral.evaluation.quality.sources import Terms, of_images, of_model
from ancestral.evaluation.sampling import check_seed
from ancestral.evaluation.subject import Subject, Trained, undisturbed
from ancestral.figures import Evaluation
from ancestral.files import Damaged, write_json
from ancestral.media import write_sheet
from ancestral.model import Model
from ancestral.runs import command
from ancestral.sampling import Sampling
from ancestral.taxonomy import title

_SILENT = (
    "No figures: such a model is measured by its samples, --measures samples, in the features of a "
    "network (--features)."
)
MEASURES = (*MEASUREMENTS, *QUALITY)
"""What can be measured, by name."""


@undisturbed
@torch.no_grad()
def evaluate(
    model: Trained,
    data: Dataset | str | None = None,
    *,
    measures: Sequence[str] = (),
    split: str = "test",
    importance_samples: int = 0,
    samples: int | None = None,
    features: Features = "classifier",
    sampling: Sampling | None = None,
    keep: float = 1.0,
    preparation: Preparation | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = False,
    write: bool = True,
    out: str | Path | None = None,
) -> Evaluation:
    """The figures of ``model`` on a split of ``data``: means over the examples.

    A class-conditional model is measured as the even mixture of its classes and, where the data have its
    classes, given the labels; the mixture of more than 20 classes, a pass for each, is then left out.

    Args:
        model: a model, a run or its directory, or a Hub name. Or images: a folder, a ``.npz`` file or a
            folder of shards, of which ``samples``, ``score`` and ``rejection`` can be measured.
        data: a data set or its source; a run's own data if None.
        measures: what to measure, of ``MEASURES``; if there are none, all that takes no samples of images, or
            of images, and of their models without a likelihood, what is called ``samples``.
        split: ``train``, ``validation``, ``test`` or ``all``.
        importance_samples: k of the importance-weighted bound; 0 leaves it out.
        samples: how many samples are measured; 10,000, or as many as there are real examples, if None.
        features: the network whose features stand for images: ``classifier`` (the data set's own, trained if
            need be), ``imagenet``, the weights of Inception, a classifier's run, or a module.
        sampling: how samples are drawn.
        keep: of each class, the share of the samples that stays.
        preparation: how a source's data are prepared; as in the run, and to the model's spec, if None.
        limit: evaluate the first so many examples only.
        seed: of the noise in bounds, and of samples.
        device: where to compute; where a model is, else on the CPU, if None.
        progress: show a progress bar.
        write: write ``evaluation.json`` and pictures into the run, if it is a run that is evaluated on the
            whole of its own test split. Figures that are there and not measured now stay; samples that were
            drawn stay in ``measured``, and are drawn once.
        out: a folder to write them into in any case.

    Raises:
        UserError: the data do not fit the model, there is no such split or measure, the model has no
            importance-weighted bound or cannot be measured so, or the run cannot be written.
    """
    for name in measures:
        if name not in MEASURES:
            raise UserError(f"expected a measure, got {name}", nearest(name, MEASURES))
    check_seed(seed)
    place = None if out is None else Path(out)
    drawing: dict[str, Any] = {"sampling": sampling or Sampling(), "keep": keep}
    plain = drawing == {"sampling": Sampling(), "keep": 1}
    how: dict[str, Any] = {"split": split, "samples": samples, "features": features}
    how |= {"seed": seed, "progress": progress}
    if are_examples(model):
        if limit is not None or importance_samples or not plain:
            problem = "expected no options of a model beside images, got some"
            raise UserError(problem, "leave out limit, importance samples, keep and how to draw")
        terms = Terms(dataset=_data_for(model, data, preparation), **how)
        return _evaluate_images(Path(str(model)), terms, measures, device or "cpu", place)
    subject = Subject.find(model, device)
    network = subject.model
    chosen, quality = _chosen(network, measures)
    if not (quality or (plain and samples is None and features == "classifier")):
        problem = "expected a measure of samples beside samples, features, keep and how to draw, got none"
        raise UserError(problem, f"add --measures {' '.join(QUALITY)}, or one of them")
    into = subject.run.path if write and subject.run and writes(data, split, limit) else None
    if into is not None and not os.access(into, os.W_OK):  # asked before the work, not after it
        problem = f"expected to write the figures into {into}, got a folder that cannot be written"
        raise UserError(problem, "leave it as it is: write=False")
    place = into if place is None else place
    if quality or not isinstance(network, Tokenizer):  # a tokenizer is worth something without its priors
        subject.check_trained()
    if importance_samples:
        network.check_importance_samples(importance_samples)
    dataset = subject.dataset(data, preparation)
    drawn = None
    if quality:  # what cannot be is refused before the work
        drawn = of_model(subject, Terms(dataset=dataset, **how, **drawing), write=write)
        for name in quality:
            QUALITY[name].check(drawn)
    examples = subject.as_taken(subject.with_own_labels(dataset.split(split, limit), dataset))
    examined = Examined(network, examples, importance_samples, progress, measures, dataset, split)
    started = time.perf_counter()
    results = []
    with torch.random.fork_rng(devices=[]):
        for name in chosen:
            torch.manual_seed(seed)
            results.append(MEASUREMENTS[name].measure(examined))
    silent = not quality and not any(result.figures or result.left_out for result in results)
    evaluation = Evaluation(
        model=title(type(network)),
        data=dataset.source,
        split=split,
        examples=len(examples),
        figures=[figure for result in results for figure in result.figures],
        codebooks=[codebook for result in results for codebook in result.codebooks],
        left_out=[
            *(sentence for result in results for sentence in result.left_out),
            *([_SILENT] if silent else []),
            *([f"Skipped {dataset.skips}"] if dataset.skips else []),
        ],
        seconds=time.perf_counter() - started,
        command=command(),
    )
    _write(evaluation, results, place, progress)
    return evaluation if drawn is None else _with_samples(evaluation, quality, drawn, place)


def _chosen(network: Model, measures: Sequence[str]) -> tuple[list[str], list[str]]:
    """The measurements of a model, and the measures of its samples."""
    able = [name for name, measurement in MEASUREMENTS.items() if measurement.applies(network)]
    if not measures:
        # Of images of a model without a likelihood nothing else tells; features are those of a classifier.
        silent = network.likelihood == "none" and isinstance(network, Decodes)
        able_to_show = network.spec.domain == "image" and network.spec.classes > 1
        return able, ["samples"] if silent and able_to_show else []
    if wrong := [name for name in measures if name in MEASUREMENTS and name not in able]:
        problem = f"expected a model of which {wrong[0]} can be measured, got {type(network).__name__}"
        raise UserError(problem, f"choose from {', '.join(able)}" if able else "leave it out of --measures")
    if network.spec.domain == "sound" and (shown := [name for name in measures if name in QUALITY]):
        problem = f"expected images to measure {shown[0]} of, got sounds"
        raise UserError(problem, f"choose from {', '.join(able) or 'nothing'}")
    return [name for name in able if name in measures], [name for name in QUALITY if name in measures]


def writes(data: Dataset | str | None, split: str, limit: int | None) -> bool:
    """Whether an evaluation of a run goes into its directory.

    One of a part, or of other data, must not take the place of the run's own.
    """
    return data is None and split == "test" and limit is None


def _evaluate_images(
    path: Path, terms: Terms, measures: Sequence[str], device: str | torch.device, place: Path | None
) -> Evaluation:
    """The figures of images that somebody has."""
    if others := [name for name in measures if name not in QUALITY]:
        problem = f"expected a measure of images, got {others[0]}, which takes a model"
        raise UserError(problem, f"choose from {', '.join(QUALITY)}")
    compared, names = of_images(path, terms, device), measures or ["samples"]
    for name in names:
        QUALITY[name].check(compared)
    about: dict[str, Any] = {"data": terms.dataset.source, "split": terms.split, "examples": compared.n}
    return _with_samples(Evaluation(model=str(path), figures=[], **about), names, compared, place)


def _data_for(path: object, data: Dataset | str | None, preparation: Preparation | None) -> Dataset:
    """The data set that images are measured against."""
    if data is None:
        raise UserError(f"expected data to measure the images of {path} against, got none", "add --data")
    return load_data(data, preparation or preparation_of(data)()) if isinstance(data, str) else data


def _with_samples(
    evaluation: Evaluation, names: Sequence[str], compared: Compared, place: Path | None
) -> Evaluation:
    """The evaluation with measures of samples, each written as it comes."""
    for name in names:
        started = time.perf_counter()
        result = QUALITY[name].measure(compared)
        evaluation = replace(
            evaluation,
            figures=[*evaluation.figures, *result.figures],
            seconds=evaluation.seconds + time.perf_counter() - started,
            command=command(),
        )
        _write(evaluation, [result], place, compared.progress)
    return evaluation


def _write(evaluation: Evaluation, results: Sequence[Result], place: Path | None, progress: bool) -> None:
    """Write figures beside those that are there already, and pictures, whose names progress tells."""
    if place is None or not results:
        return
    with contextlib.suppress(Damaged):
        evaluation = evaluation.beside(Evaluation.read(place / "evaluation.json"))
    write_json(place / "evaluation.json", evaluation.to_json())
    for name, draw in [item for result in results for item in result.pictures.items()]:
        path = place / "samples" / f"{name}.png"
        try:
            sheet = draw()
        except UserError as error:  # latents that lead beyond all floats take no figure away
            print(f"no picture of {name}: {error.problem}", file=sys.stderr, flush=True)
        else:
            write_sheet(path, sheet)
            if progress:
                print(path, flush=True)
