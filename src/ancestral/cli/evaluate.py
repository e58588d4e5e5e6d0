"""``ancestral evaluate RUN``."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ancestral.cli.options import DataName, Device, SamplingOptions, SplitName, device
from ancestral.cli.parse import parse, shown_as
from ancestral.sampling import Sampling


@dataclass(frozen=True)
class Options:
    """Measure a trained model, or images, against data.

    Figures on the whole of a run's own test split go into the run.
    """

    run: Annotated[
        str,
        tyro.conf.Positional,
        shown_as("RUN"),
        tyro.conf.arg(help="Run directory, model folder or Hub name; or images: a folder, .npz or shards."),
    ]
    data: DataName = None
    measures: Annotated[tuple[str, ...], shown_as("[NAME [NAME ...]]")] = ()
    """What to measure: likelihood, columns (of tables), codes, reconstruction, spectra (of sounds), levels,
    latents, accuracy, all that apply if left out; of speech, which takes minutes: probes (what codes tell of
    speaker and content), conversion (voice and content of what is converted); of samples, which takes
    minutes: samples (Fréchet and kernel distance, precision, recall, density, coverage, label agreement,
    copies), score (CAS), rejection."""
    split: SplitName = "test"
    importance_samples: int = 0
    """k of the importance-weighted bound, for models with continuous latents; 0 leaves it out."""
    samples: Annotated[int | None, shown_as("INT")] = None
    """Samples to measure, and as many real examples; 10,000 or what there is if left out."""
    features: Annotated[str, shown_as("NAME")] = "classifier"
    """Network whose features stand for images: classifier (the data set's own, trained once), imagenet, a
    file of Inception's weights, or the run of a classifier."""
    sampling: SamplingOptions = field(default_factory=Sampling)
    keep: float = 1.0
    """Of each class, the share of the samples that stays, by the classifier that is the data's gate."""
    limit: Annotated[int | None, shown_as("INT")] = None
    """Evaluate the first so many examples only; all if left out."""
    seed: int = 0
    """Of the noise in bounds, and of samples."""
    out: Annotated[Path | None, shown_as("FOLDER")] = None
    """Folder for evaluation.json and pictures; the run's own if left out, and of images none."""
    device: Device = "auto"


def main(arguments: list[str]) -> None:
    """Evaluate, print and write."""
    options = parse(Options, arguments, "evaluate")
    from ancestral.evaluation import evaluate
    from ancestral.evaluation.evaluation import writes

    own = (Path(options.run) / "run.json").is_file()
    whole = writes(options.data, options.split, options.limit)
    writable = os.access(options.run, os.W_OK)
    result = evaluate(
        options.run,
        options.data,
        measures=options.measures,
        split=options.split,
        samples=options.samples,
        features=options.features,
        sampling=options.sampling,
        keep=options.keep,
        importance_samples=options.importance_samples,
        limit=options.limit,
        seed=options.seed,
        device=device(options.device),
        progress=True,
        write=writable,
        out=options.out,
    )
    print(result)
    if own and options.out is None and not (whole and writable):
        held = "that holds the figures of the whole of its own test split"
        print(f"\n(not written into {options.run}: {'it cannot be written' if whole else held})")
