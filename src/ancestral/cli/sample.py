"""``ancestral sample RUN``."""

from dataclasses import dataclass
from typing import Annotated, Literal

from ancestral.cli.options import Device, Folder, RunName, device, folder
from ancestral.cli.parse import parse, shown_as
from ancestral.evaluation import sample, write_images
from ancestral.runs import load


@dataclass(frozen=True)
class Options:
    """Draw from a trained model."""

    run: RunName
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
    out: Folder = None
    device: Device = "auto"


def main(arguments: list[str]) -> None:
    """Sample and write."""
    options = parse(Options, arguments, "sample")
    model = load(options.run, device(options.device))
    x, labels = sample(model, options.n, options.labels, temperature=options.temperature, seed=options.seed, progress=True)
    name = f"samples-seed{options.seed}"
    name += f"-t{options.temperature:g}" if options.temperature != 1 else ""
    name += "-class" + "-".join(map(str, options.labels)) if options.labels else ""
    print(write_images(folder(options.run, options.out), name, x, model, labels, kind=options.format))
