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
    top_k: Annotated[int | None, shown_as("INT")] = None
    """Draw from the k likeliest levels of each value; models that draw values in order."""
    top_p: Annotated[float | None, shown_as("FLOAT")] = None
    """Draw from the likeliest levels that reach this probability; the same models."""
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
    x, labels = sample(
        model, options.n, options.labels, temperature=options.temperature, top_k=options.top_k, top_p=options.top_p, seed=options.seed,
        progress=True,
    )  # fmt: skip
    name = f"samples-seed{options.seed}"
    name += f"-t{options.temperature:g}" if options.temperature != 1 else ""
    name += f"-top{options.top_k}" if options.top_k is not None else ""
    name += f"-p{options.top_p:g}" if options.top_p is not None else ""
    name += "-class" + "-".join(map(str, options.labels)) if options.labels else ""
    print(write_images(folder(options.run, options.out), name, x, model, labels, kind=options.format))
