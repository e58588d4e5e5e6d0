"""``ancestral tokenize RUN --out codes.npy``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ancestral.cli.options import DataName, Device, RunName, SplitName, device
from ancestral.cli.parse import parse, shown_as
from ancestral.errors import UserError


@dataclass(frozen=True)
class Options:
    """Turn data into code maps."""

    run: RunName
    out: Annotated[Path, shown_as("FILE")]
    """File to write: .npy (the codes alone) or .safetensors (levels and labels; its metadata tell the
    split, the names of examples and classes, and the codebooks' sizes)."""
    data: DataName = None
    split: SplitName = "train"
    device: Device = "auto"


def main(arguments: list[str]) -> None:
    """Tokenize and write."""
    options = parse(Options, arguments, "tokenize")
    from ancestral.evaluation import tokenize, write_codes
    from ancestral.evaluation.subject import Subject
    from ancestral.evaluation.tokens import as_tokenizer, check_codes_path

    if options.out.exists():
        raise UserError(
            f"expected a new file, got {options.out} which is there already", "choose another --out"
        )
    check_codes_path(options.out)
    subject = Subject.find(options.run, device(options.device))
    levels = as_tokenizer(subject.model).code_specs()
    data = subject.dataset(options.data)
    codes, labels = tokenize(subject.model, data, split=options.split, progress=True)
    about = {
        "data": data.source,
        "split": options.split,
        "names": data.names_of(options.split),
        "classes": data.classes,
        "codebook_size": [level.levels for level in levels],
    }
    write_codes(options.out, codes, labels, about)
    shapes = ", ".join(f"{tuple(c.shape)} {str(c.dtype).removeprefix('torch.')}" for c in codes)
    print(f"{options.out}: {shapes}")
