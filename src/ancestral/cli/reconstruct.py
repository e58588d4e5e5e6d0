"""``ancestral reconstruct RUN``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ancestral.cli.parse import device, parse, shown_as
from ancestral.cli.sample import folder
from ancestral.data.sheets import write_png
from ancestral.errors import UserError
from ancestral.evaluation.data import check_fit, resolve, take_split
from ancestral.evaluation.latent import reconstructions
from ancestral.model import Reconstructs
from ancestral.runs import load


@dataclass(frozen=True)
class Options:
    """Put originals beside the model's versions of them."""

    run: Annotated[str, tyro.conf.Positional, shown_as("RUN")]
    """Run directory, model folder or Hub name."""
    data: Annotated[str | None, shown_as("DATA")] = None
    """Data to reconstruct; the run's own if left out."""
    split: Literal["train", "validation", "test"] = "test"
    """Which examples."""
    n: int = 32
    """Number of examples."""
    out: Annotated[Path | None, shown_as("FOLDER")] = None
    """Folder to write to; samples/ in the run directory if there is one, else the current folder."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""


def main(arguments: list[str]) -> None:
    """Reconstruct and write."""
    options = parse(Options, arguments, "reconstruct")
    model = load(options.run, device(options.device))
    if not isinstance(model, Reconstructs):
        raise UserError(f"expected a model that reconstructs, got {type(model).__name__}", "use sample instead")
    data = resolve(options.run, options.data)
    check_fit(model.spec, data)
    x = take_split(data, options.split, options.n).x
    path = folder(options.run, options.out) / "reconstructions.png"
    write_png(path, reconstructions(model, x.to(model.device)))
    print(path)
