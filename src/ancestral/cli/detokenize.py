"""``ancestral detokenize RUN codes.npy``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ancestral.cli.parse import device, parse
from ancestral.evaluation import detokenize, read_codes, write_images
from ancestral.runs import load


@dataclass(frozen=True)
class Options:
    """Turn code maps back into images."""

    run: Annotated[str, tyro.conf.Positional]
    """Run directory, model folder or Hub name."""
    codes: Annotated[Path, tyro.conf.Positional]
    """File of codes that tokenize wrote, or of the same form."""
    format: Literal["sheet", "files", "npz"] = "npz"
    """One PNG sheet, a PNG file each, or one .npz."""
    n: int | None = None
    """Decode the first so many only."""
    out: Path = Path()
    """Folder to write to."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""


def main(arguments: list[str]) -> None:
    """Decode and write."""
    options = parse(Options, arguments, "detokenize")
    model = load(options.run, device(options.device))
    codes = tuple(level[: options.n] for level in read_codes(options.codes))
    x = detokenize(model, codes, progress=True)
    print(write_images(options.out, options.codes.stem, x, model, kind=options.format))
