"""``ancestral convert RUN --to CLASS``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ancestral.cli.options import (
    DataName,
    Device,
    Folder,
    RunName,
    SplitName,
    device,
    file_name,
    folder,
    written,
)
from ancestral.cli.parse import parse, shown_as
from ancestral.errors import UserError


@dataclass(frozen=True)
class Options:
    """Say the same in another voice: the codes of sounds, decoded as a speaker's.

    Originals, reconstructions and conversions become .wav files and a picture.
    """

    run: RunName
    to: Annotated[str, shown_as("CLASS")]
    """The speaker: a class of the model, by its name or its number."""
    files: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        shown_as("[FILE ...]"),
        tyro.conf.arg(help="Sounds to convert; of data if there are none."),
    ] = ()
    data: DataName = None
    split: SplitName = "test"
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 4
    """Number of sounds of the data, of other speakers."""
    seed: int = 0
    """Of the noise of a decoder that draws."""
    out: Folder = None
    device: Device = "auto"


def main(arguments: list[str]) -> None:
    """Convert and write."""
    options = parse(Options, arguments, "convert")
    if options.files and options.data is not None:
        raise UserError("expected files or --data, got both", "leave one of them out")
    from ancestral.evaluation import convert
    from ancestral.evaluation.subject import Subject
    from ancestral.media import Sheet, comparison, write_sheet

    subject = Subject.find(options.run, device(options.device))
    found = convert(
        subject.run or subject.model,
        options.data,
        to=options.to,
        files=options.files,
        split=options.split,
        n=options.n,
        seed=options.seed,
        device=subject.model.device,
        progress=True,
    )
    for note in found.notes:
        print(note)
    spec, classes = subject.model.spec, subject.model.classes
    shown = {
        "original": found.originals,
        "reconstruction": found.reconstructions,
        "converted": found.converted,
    }
    voice = classes[found.to] if classes else str(found.to)
    labels = [] if found.labels is None else found.labels.tolist()
    heads = [file.name for file in options.files] or [classes[k] if classes else str(k) for k in labels]
    series = ["original", "reconstruction", f"converted to {voice}"]
    pixels = comparison(spec, *shown.values(), series=series, heads=heads, lengths=found.lengths)
    name = "-".join(["conversions", voice, *(file.stem for file in options.files)])
    path = folder(options.run, options.out) / f"{file_name(name)}.png"
    write_sheet(path, Sheet(pixels, spec, shown, found.lengths))
    print(written(path))
    if not options.files and len(found.originals) < options.n:
        print(f"({options.split} has {len(found.originals)} sounds of other speakers only)")
