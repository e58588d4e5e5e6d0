"""``ancestral tokenize RUN --out codes.npy``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ancestral.cli.parse import device, parse
from ancestral.errors import UserError
from ancestral.evaluation import tokenize, write_codes
from ancestral.evaluation.data import resolve, take_split
from ancestral.runs import load


@dataclass(frozen=True)
class Options:
    """Turn data into code maps."""

    run: Annotated[str, tyro.conf.Positional]
    """Run directory, model folder or Hub name."""
    out: Path
    """File to write: .npy (the codes alone) or .safetensors (levels and labels)."""
    data: str | None = None
    """Data to tokenize; the run's own if left out."""
    split: Literal["train", "validation", "test"] = "train"
    """Which examples."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""


def main(arguments: list[str]) -> None:
    """Tokenize and write."""
    options = parse(Options, arguments, "tokenize")
    if options.out.exists():
        raise UserError(f"expected a new file, got {options.out} which is there already", "choose another --out")
    model = load(options.run, device(options.device))
    split = take_split(resolve(options.run, options.data), options.split)
    model.spec.check(split.x[:1])
    codes = tokenize(model, split.x, progress=True)
    write_codes(options.out, codes, split.labels)
    shapes = ", ".join(f"{tuple(c.shape)} {str(c.dtype).removeprefix('torch.')}" for c in codes)
    print(f"{options.out}: {shapes}")
