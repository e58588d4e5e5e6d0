"""``ancestral detokenize RUN codes``."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ancestral.cli.options import Device, RunName, device
from ancestral.cli.parse import parse, shown_as
from ancestral.errors import UserError

_SHARD = 1000


@dataclass(frozen=True)
class Options:
    """Turn code maps back into images, or sounds, by the voices of their labels."""

    run: RunName
    codes: Annotated[Path, tyro.conf.Positional, shown_as("CODES")]
    """Folder or file of codes that tokenize wrote, or a file of the same form."""
    format: Literal["sheet", "files", "npz", "shards"] = "npz"
    """One PNG sheet (sounds as .wav files beside it), a PNG or .wav file each, one .npz with x and labels if
    they are there, or a folder of .npz with 1000 examples each, one after another, for more than the memory
    holds."""
    n: Annotated[int | None, shown_as("INT")] = None
    """Decode the first so many only; all if left out."""
    out: Annotated[Path, shown_as("FOLDER")] = Path()
    """Folder to write to."""
    device: Device = "auto"


def main(arguments: list[str]) -> None:
    """Decode and write."""
    options = parse(Options, arguments, "detokenize")
    from ancestral.evaluation import detokenize
    from ancestral.evaluation.code_files import read_labeled_codes
    from ancestral.evaluation.tokens import as_tokenizer
    from ancestral.media import write_examples
    from ancestral.runs import load

    model = load(options.run, device(options.device))
    as_tokenizer(model)  # before codes are read
    folder = options.codes.is_dir()
    if folder:
        _check_weights(model, options.codes)
    name = options.codes.resolve().name if folder else options.codes.stem
    if options.format == "shards":
        _write_shards(model, options, options.out / f"{name}-decoded")
        return
    codes, labels, lengths = read_labeled_codes(options.codes, options.n)
    voices = labels if _own_classes(model, options.codes, labels) else None
    x = detokenize(model, codes, voices, lengths, progress=True)
    print(write_examples(options.out, name, x, model.spec, labels, kind=options.format, lengths=lengths))


def _write_shards(model: Any, options: Options, out: Path) -> None:
    """Decode some examples after others, each into a file of their own."""
    from ancestral.evaluation import detokenize, read_code_shards
    from ancestral.evaluation.code_files import read_labeled_codes
    from ancestral.evaluation.tokens import as_tokenizer
    from ancestral.media import write_examples
    from ancestral.progress import bar

    if out.exists():
        raise UserError(f"expected a new folder, got {out} which is there already", "choose another --out")
    if options.codes.is_dir() and (options.n is None or options.n > 0):
        shards = read_code_shards(options.codes)
        n, whole = min(len(shards), options.n or len(shards)), shards.labeled()
    else:
        codes = read_labeled_codes(options.codes, options.n)
        as_tokenizer(model).check_codes(codes.levels)
        n, whole = len(codes.levels[0]), iter([codes])
    parts, done = (part for codes in whole for part in codes.split(_SHARD)), 0
    with bar("decoding", total=n) as tell:
        for k, part in enumerate(parts):
            levels, labels, lengths = part.some(slice(n - done))
            voices = labels if _own_classes(model, options.codes, labels) else None
            x = detokenize(model, levels, voices, lengths)
            write_examples(out, f"shard-{k:05d}", x, model.spec, labels, kind="npz", lengths=lengths)
            done += len(x)
            tell(done)
            if done == n:
                break
    print(out)


def _own_classes(model: Any, codes: Path, labels: Any) -> bool:
    """Whether labels are classes of a model that decodes by class: not those of other data."""
    from ancestral.evaluation.code_files import classes_in

    if labels is None or model.spec.domain != "sound" or not model.spec.classes:
        return False
    named = classes_in(codes)
    return not named or not model.classes or named == model.classes


def _check_weights(model: Any, codes: Path) -> None:
    """Say so if the codes are of other weights, which need not be a mistake: a decoder may be tuned later."""
    from ancestral.evaluation import read_code_shards
    from ancestral.evaluation.tokens import as_tokenizer, codes_checksum

    if read_code_shards(codes).manifest.weights != codes_checksum(as_tokenizer(model)):
        problem = f"the codes in {codes} were made with other weights, and may decode to noise with these"
        print(f"ancestral: {problem}", file=sys.stderr)
