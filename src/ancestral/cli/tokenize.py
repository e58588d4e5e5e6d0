"""``ancestral tokenize RUN --out codes.npy``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ancestral.cli.parse import device, parse, shown_as
from ancestral.errors import UserError
from ancestral.evaluation import tokenize, write_codes
from ancestral.evaluation.data import check_fit, resolve, take_split
from ancestral.evaluation.tokens import as_tokenizer, check_codes_path
from ancestral.runs import load


@dataclass(frozen=True)
class Options:
    """Turn data into code maps."""

    run: Annotated[str, tyro.conf.Positional, shown_as("RUN")]
    """Run directory, model folder or Hub name."""
    out: Annotated[Path, shown_as("FILE")]
    """File to write: .npy (the codes alone) or .safetensors (levels and labels)."""
    data: Annotated[str | None, shown_as("DATA")] = None
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
    check_codes_path(options.out)
    model = load(options.run, device(options.device))
    as_tokenizer(model)
    data = resolve(options.run, options.data)
    check_fit(model.spec, data)
    split = take_split(data, options.split)
    codes = tokenize(model, split.x, progress=True)
    write_codes(options.out, codes, split.labels)
    shapes = ", ".join(f"{tuple(c.shape)} {str(c.dtype).removeprefix('torch.')}" for c in codes)
    print(f"{options.out}: {shapes}")
