"""Evaluate a model on data: a subject, its measurements, their figures; and samples beside real examples."""

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from ancestral.batch import Batch
from ancestral.data import Dataset, Preparation, load_data, preparation_of
from ancestral.errors import UserError, check_at_least, nearest
from ancestral.evaluation.bulk import sample_shards
from ancestral.evaluation.extractors import Extractor, Features
from ancestral.evaluation.given import are_examples, read_examples
from ancestral.evaluation.measurement import Examined, Result
from ancestral.evaluation.measurements import MEASUREMENTS
from ancestral.evaluation.quality import QUALITY
from ancestral.evaluation.quality.compared import Compared
from ancestral.evaluation.sampling import check_seed
from ancestral.evaluation.subject import Subject, Trained, state_checksum, undisturbed
from ancestral.figures import Evaluation
from ancestral.files import Damaged, write_json
from ancestral.media import write_png
from ancestral.runs import command
from ancestral.sampling import Sampling
from ancestral.taxonomy import title
from ancestral.training import classifier_of

MEASURES = (*MEASUREMENTS, *QUALITY)
"""What can be measured, by name."""
SAMPLES = 10_000
"""Samples that are measured, where there are as many real examples."""


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
) -> Evaluation:
    """The figures of ``model`` on a split of ``data``: means over the examples.

    A class-conditional model is measured as the even mixture of its classes and, where the data have its
    classes, given the labels; the mixture of more than 20 classes, a pass for each, is then left out.

    Args:
        model: a model, a run or its directory, or a Hub name. Or images: a folder, a ``.npz`` file or a
            folder of shards, of which ``samples``, ``score`` and ``rejection`` can be measured.
        data: a data set or its source; a run's own data if None.
        measures: what to measure, of ``MEASURES``; if there are none, all that takes no samples, or of images
            what is called ``samples``.
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
            whole of its own test split. Figures that are there and not measured now stay.

    Raises:
        UserError: the data do not fit the model, there is no such split or measure, the model has no
            importance-weighted bound or cannot be measured so, or the run cannot be written.
    """
    for name in measures:
        if name not in MEASURES:
            raise UserError(f"expected a measure, got {name}", nearest(name, MEASURES))
    check_seed(seed)
    if are_examples(model):
        if limit is not None or importance_samples or keep != 1 or sampling not in (None, Sampling()):
            problem = "expected no options of a model beside images, got some"
            raise UserError(problem, "leave out limit, importance samples, keep and how to draw")
        return _evaluate_examples(
            Path(str(model)),
            data=data,
            measures=measures,
            split=split,
            samples=samples,
            features=features,
            preparation=preparation,
            seed=seed,
            device=device,
            progress=progress,
        )
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
        for name, measurement in MEASUREMENTS.items():
            if not (name in measures if measures else measurement.applies(network)):
                continue
            if not measurement.applies(network):
                problem = f"expected a model of which {name} can be measured, got {type(network).__name__}"
                raise UserError(problem, "leave it out of --measures")
            torch.manual_seed(seed)
            results.append(measurement.measure(examined))
    if wanted := [name for name in QUALITY if name in measures]:
        n = _count(samples, dataset, split)
        how: dict[str, Any] = {"sampling": sampling or Sampling(), "keep": keep, "seed": seed}
        batch, changed = _drawn(subject, n, dataset=dataset, progress=progress, **how)
        compared = Compared(
            samples=batch,
            sampling=changed,
            dataset=dataset,
            split=split,
            extractor=Extractor.find(features, dataset, network.device, progress=progress),
            model=network,
            seed=seed,
            progress=progress,
        )
        results += _quality(wanted, compared)
    evaluation = _evaluation(
        title(type(network)), dataset, split=split, examples=len(examples), results=results, started=started
    )
    if into is not None:
        whole = _beside_others(evaluation, into) if measures else evaluation
        write_json(into / "evaluation.json", whole.to_json())
        for name, draw in [item for result in results for item in result.pictures.items()]:
            write_png(into / "samples" / f"{name}.png", draw())
    return evaluation


def writes(data: Dataset | str | None, split: str, limit: int | None) -> bool:
    """Whether an evaluation of a run goes into its directory.

    One of a part, or of other data, must not take the place of the run's own.
    """
    return data is None and split == "test" and limit is None


def _evaluate_examples(
    path: Path,
    *,
    data: Dataset | str | None,
    measures: Sequence[str],
    split: str,
    samples: int | None,
    features: Features,
    preparation: Preparation | None,
    seed: int,
    device: str | torch.device | None,
    progress: bool,
) -> Evaluation:
    """The figures of images that somebody has."""
    if data is None:
        raise UserError(f"expected data to measure the images of {path} against, got none", "add --data")
    if isinstance(data, str):
        data = load_data(data, preparation or preparation_of(data)())
    for name in measures:
        if name not in QUALITY:
            problem = f"expected a measure of images, got {name}, which takes a model"
            raise UserError(problem, f"choose from {', '.join(QUALITY)}")
    started = time.perf_counter()
    batch = read_examples(path, data)
    compared = Compared(
        samples=batch.some(_count(samples, data, split, len(batch))),
        sampling={"from": str(path)},
        dataset=data,
        split=split,
        extractor=Extractor.find(features, data, device or "cpu", progress=progress),
        seed=seed,
        progress=progress,
    )
    results = _quality(measures or ["samples"], compared)
    return _evaluation(str(path), data, split=split, examples=compared.n, results=results, started=started)


def _count(samples: int | None, dataset: Dataset, split: str, there: int | None = None) -> int:
    """How many samples are measured: as many as are asked for, else as there can be."""
    if samples is not None:
        check_at_least(1, samples=samples)
        if there is not None and samples > there:
            problem = f"expected at least {samples} images to measure, got {there}"
            raise UserError(problem, "lower --samples")
        return samples
    most = [SAMPLES, len(dataset.split(split)), len(dataset.train)]
    return min(most if there is None else [*most, there])


def _drawn(
    subject: Subject,
    n: int,
    *,
    sampling: Sampling,
    keep: float,
    dataset: Dataset,
    seed: int,
    progress: bool,
) -> tuple[Batch, Mapping[str, Any]]:
    """Samples of a model and how they were drawn; of a run they are kept there, and drawn once."""
    model = subject.model
    if model.spec.contexts:
        problem = f"expected a model that draws by itself, got {type(model).__name__} which is given contexts"
        raise UserError(problem, "measure its likelihood")
    gate = classifier_of(dataset, "gate", progress=progress) if keep < 1 else None
    how = asdict(sampling) | {"keep": keep}
    changed = {k: v for k, v in how.items() if v != {**asdict(Sampling()), "keep": 1.0}[k]}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "samples"
        if subject.run is not None and os.access(subject.run.path, os.W_OK):
            name = "-".join([f"seed{seed}", *(f"{k}{v:g}" for k, v in sorted(changed.items()))])
            folder = subject.run.path / "measured" / f"{name}-{state_checksum(model)[:8]}"
        shards = sample_shards(
            model, n, folder, keep=keep, gate=gate, **asdict(sampling), seed=seed, progress=progress
        )
        batch = shards.batch()
    return batch[:n], changed


def _quality(names: Sequence[str], compared: Compared) -> list[Result]:
    results = []
    for name in names:
        if not QUALITY[name].applies(compared):
            problem = f"expected samples whose classes are known and not yet rejected to measure {name}"
            raise UserError(f"{problem}, got others", "leave it out of --measures")
        results.append(QUALITY[name].measure(compared))
    return results


def _evaluation(
    model: str, dataset: Dataset, *, split: str, examples: int, results: Sequence[Result], started: float
) -> Evaluation:
    return Evaluation(
        model=model,
        data=dataset.source,
        split=split,
        examples=examples,
        figures=[figure for result in results for figure in result.figures],
        codebooks=[codebook for result in results for codebook in result.codebooks],
        seconds=time.perf_counter() - started,
        command=command(),
    )


def _beside_others(evaluation: Evaluation, run: Path) -> Evaluation:
    """The evaluation with the figures of the one in the run that were not measured now."""
    try:
        there = Evaluation.read(run / "evaluation.json")
    except Damaged:
        return evaluation
    new = {figure.id for figure in evaluation.figures}
    return replace(
        evaluation,
        figures=[*(f for f in there.figures if f.id not in new), *evaluation.figures],
        codebooks=evaluation.codebooks or there.codebooks,
        seconds=there.seconds + evaluation.seconds,
    )
