"""``ancestral evaluate RUN``."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ancestral.cli.options import DataName, Device, RunName, SplitName, device
from ancestral.cli.parse import parse, shown_as


@dataclass(frozen=True)
class Options:
    """Measure a trained model; figures on a run's own test split go into the run."""

    run: RunName
    data: DataName = None
    split: SplitName = "test"
    importance_samples: int = 0
    """k of the importance-weighted bound, for models with continuous latents; 0 leaves it out."""
    limit: Annotated[int | None, shown_as("INT")] = None
    """Evaluate the first so many examples only; all if left out."""
    seed: int = 0
    """Of the noise in bounds."""
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
        split=options.split,
        importance_samples=options.importance_samples,
        limit=options.limit,
        seed=options.seed,
        device=device(options.device),
        progress=True,
        write=writable,
    )
    print(result)
    if own and not (whole and writable):
        held = "that holds the figures of the whole of its own test split"
        print(f"\n(not written into {options.run}: {'it cannot be written' if whole else held})")
