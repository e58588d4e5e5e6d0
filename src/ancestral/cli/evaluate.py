"""``ancestral evaluate RUN``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from ancestral.cli.parse import device, parse, shown_as
from ancestral.cli.sample import folder
from ancestral.data.sheets import write_png
from ancestral.evaluation import evaluate
from ancestral.evaluation.data import resolve, take_split
from ancestral.evaluation.latent import pictures
from ancestral.files import write_json
from ancestral.runs import load


@dataclass(frozen=True)
class Options:
    """Measure a trained model; writes evaluation.json and pictures into its run."""

    run: Annotated[str, tyro.conf.Positional, shown_as("RUN")]
    """Run directory, model folder or Hub name."""
    data: Annotated[str | None, shown_as("DATA")] = None
    """Data to evaluate on; the run's own if left out."""
    split: Literal["train", "validation", "test"] = "test"
    """Which examples."""
    importance_samples: int = 0
    """k of the importance-weighted bound, for models with a bound; 0 leaves it out."""
    limit: Annotated[int | None, shown_as("INT")] = None
    """Evaluate the first so many examples only; all if left out."""
    seed: int = 0
    """Of the noise in bounds."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""


def main(arguments: list[str]) -> None:
    """Evaluate, print and write."""
    options = parse(Options, arguments, "evaluate")
    where = device(options.device)
    model, data = load(options.run, where), resolve(options.run, options.data)
    result = evaluate(
        model, data, split=options.split, importance_samples=options.importance_samples, limit=options.limit, seed=options.seed,
        device=where, progress=True,
    )  # fmt: skip
    print(result)
    if (Path(options.run) / "run.json").is_file() and options.data is None:
        write_json(Path(options.run) / "evaluation.json", result.to_json())
        torch.manual_seed(options.seed)
        examples = take_split(data, options.split, 2000).x.to(where)
        for name, picture in pictures(model, examples).items():
            write_png(folder(options.run, None) / f"{name}.png", picture)
