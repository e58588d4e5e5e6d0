"""``ancestral tokenize RUN --out codes.npy``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ancestral.cli.options import DataName, Device, RunName, SplitName, device
from ancestral.cli.parse import parse, shown_as
from ancestral.errors import UserError
from ancestral.evaluation import tokenize, write_codes
from ancestral.evaluation.tokens import check_codes_path


@dataclass(frozen=True)
class Options:
    """Turn data into code maps."""

    run: RunName
    out: Annotated[Path, shown_as("FILE")]
    """File to write: .npy (the codes alone) or .safetensors (levels and labels)."""
    data: DataName = None
    split: SplitName = "train"
    device: Device = "auto"


def main(arguments: list[str]) -> None:
    """Tokenize and write."""
    options = parse(Options, arguments, "tokenize")
    if options.out.exists():
        raise UserError(
            f"expected a new file, got {options.out} which is there already", "choose another --out"
        )
    check_codes_path(options.out)
    codes, labels = tokenize(
        options.run, options.data, split=options.split, device=device(options.device), progress=True
    )
    write_codes(options.out, codes, labels)
    shapes = ", ".join(f"{tuple(c.shape)} {str(c.dtype).removeprefix('torch.')}" for c in codes)
    print(f"{options.out}: {shapes}")
