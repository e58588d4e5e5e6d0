"""``ancestral detokenize RUN codes``."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ancestral.cli.options import Device, RunName, device
from ancestral.cli.parse import parse, shown_as


@dataclass(frozen=True)
class Options:
    """Turn code maps back into images."""

    run: RunName
    codes: Annotated[Path, tyro.conf.Positional, shown_as("CODES")]
    """Folder or file of codes that tokenize wrote, or a file of the same form."""
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
    folder = options.codes.is_dir()
    if folder:
        _check_weights(model, options.codes)
    x = detokenize(model, read_codes(options.codes, options.n), progress=True)
    name = options.codes.resolve().name if folder else options.codes.stem
    print(write_examples(options.out, name, x, model.spec, kind=options.format))


def _check_weights(model: Any, codes: Path) -> None:
    """Say so if the codes are of other weights, which need not be a mistake: a decoder may be tuned later."""
    from ancestral.evaluation import read_code_shards
    from ancestral.evaluation.bulk_tokens import codes_checksum
    from ancestral.evaluation.tokens import as_tokenizer

    if read_code_shards(codes).manifest.weights != codes_checksum(as_tokenizer(model)):
        problem = f"the codes in {codes} were made with other weights, and may decode to noise with these"
        print(f"ancestral: {problem}", file=sys.stderr)
