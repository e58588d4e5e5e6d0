"""``ancestral detokenize RUN codes.npy``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ancestral.cli.options import Device, RunName, device
from ancestral.cli.parse import parse, shown_as


@dataclass(frozen=True)
class Options:
    """Turn code maps back into images."""

    run: RunName
    codes: Annotated[Path, tyro.conf.Positional, shown_as("CODES")]
    """File of codes that tokenize wrote, or of the same form."""
    format: Literal["sheet", "files", "npz"] = "npz"
    """One PNG sheet, a PNG file each, or one .npz."""
    n: Annotated[int | None, shown_as("INT")] = None
    """Decode the first so many only; all if left out."""
    out: Annotated[Path, shown_as("FOLDER")] = Path()
    """Folder to write to."""
    device: Device = "auto"


def main(arguments: list[str]) -> None:
    """Decode and write."""
    options = parse(Options, arguments, "detokenize")
    from ancestral.evaluation import detokenize, read_codes
    from ancestral.media import write_examples
    from ancestral.runs import load

    model = load(options.run, device(options.device))
    x = detokenize(model, read_codes(options.codes, options.n), progress=True)
    print(write_examples(options.out, options.codes.stem, x, model.spec, kind=options.format))
