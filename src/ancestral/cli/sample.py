"""``ancestral sample RUN``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ancestral.cli.parse import device, parse, shown_as
from ancestral.evaluation import sample, write_images
from ancestral.runs import load


@dataclass(frozen=True)
class Options:
    """Draw from a trained model."""

    run: Annotated[str, tyro.conf.Positional, shown_as("RUN")]
    """Run directory, model folder or Hub name."""
    n: int = 64
    """Number of samples."""
    labels: Annotated[tuple[int, ...], shown_as("INT [INT ...]")] = ()
    """Classes, repeated in turn; without them the model draws classes at random."""
    temperature: float = 1.0
    """1 samples the model; lower values give likelier, less diverse samples."""
    seed: int = 0
    """The same seed gives the same samples."""
    format: Literal["sheet", "files", "npz"] = "sheet"
    """One PNG sheet, a PNG file each, or one .npz with x and labels."""
    out: Annotated[Path | None, shown_as("FOLDER")] = None
    """Folder to write to; samples/ in the run directory if there is one, else the current folder."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""


def main(arguments: list[str]) -> None:
    """Sample and write."""
    options = parse(Options, arguments, "sample")
    model = load(options.run, device(options.device))
    x, labels = sample(model, options.n, list(options.labels), temperature=options.temperature, seed=options.seed, progress=True)
    name = f"samples-seed{options.seed}"
    name += f"-t{options.temperature:g}" if options.temperature != 1 else ""
    name += "-class" + "-".join(map(str, options.labels)) if options.labels else ""
    print(write_images(folder(options.run, options.out), name, x, model, labels, kind=options.format))


def folder(run: str, out: Path | None) -> Path:
    """Where a command's pictures go."""
    if out is not None:
        return out
    return Path(run) / "samples" if (Path(run) / "run.json").is_file() else Path()
