"""``ancestral reconstruct RUN``."""

from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from ancestral.cli.options import DataName, Device, Folder, RunName, SplitName, device, folder
from ancestral.cli.parse import parse


@dataclass(frozen=True)
class Options:
    """Put originals beside the model's versions of them; sounds as .wav files, too."""

    run: RunName
    data: DataName = None
    split: SplitName = "test"
    n: int = 32
    """Number of examples."""
    levels: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Of a model with levels of codes: a row for the coarsest alone, one with the next, and so on."""
    out: Folder = None
    device: Device = "auto"


def main(arguments: list[str]) -> None:
    """Reconstruct and write."""
    options = parse(Options, arguments, "reconstruct")
    from ancestral.evaluation import reconstruct
    from ancestral.evaluation.subject import Subject
    from ancestral.evaluation.tokens import as_tokenizer
    from ancestral.media import Sheet, comparison, write_sheet

    subject = Subject.find(options.run, device(options.device))
    spec = subject.model.spec
    levels = len(as_tokenizer(subject.model).code_specs()) if options.levels else 0
    known: list[int | None] = [*range(1, levels + 1)] or [None]
    examples = subject.examples(subject.dataset(options.data), options.split, options.n)
    pairs = [reconstruct(subject.model, examples, n=None, levels=k, progress=True) for k in known]
    x, versions = pairs[0][0], [version for _, version in pairs]
    series = ["original", *(f"{k} of {levels} levels" if k else "reconstruction" for k in known)]
    shown: dict[str, Any] = {"series": series} if spec.domain == "sound" else {}
    pixels = comparison(spec, x, *versions, lengths=examples.lengths, **shown)
    name = "levels" if options.levels else "reconstructions"
    path = folder(options.run, options.out) / f"{name}.png"
    write_sheet(path, Sheet(pixels, spec, dict(zip(series, (x, *versions), strict=True)), examples.lengths))
    print(path)
    if len(x) < options.n:
        print(f"({options.split} has {len(x)} examples only)")
