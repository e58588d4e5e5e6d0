"""``ancestral reconstruct RUN``."""

from dataclasses import dataclass, replace
from typing import Annotated, Any

import tyro

from ancestral.cli.options import DataName, Device, Folder, RunName, SplitName, device, folder, written
from ancestral.cli.parse import parse, shown_as
from ancestral.errors import UserError

_EXAMPLES, _SOUNDS, _SECONDS = 32, 8, 10.0
"""Examples, or sounds and how much of each: a decoder that draws takes its time."""


@dataclass(frozen=True)
class Options:
    """Put originals beside the model's versions of them; sounds as .wav files, too."""

    run: RunName
    data: DataName = None
    split: SplitName = "test"
    n: Annotated[int | None, shown_as("INT"), tyro.conf.arg(aliases=["-n"])] = None
    """Number of examples; 32, or 8 sounds, if left out."""
    seconds: Annotated[float | None, shown_as("FLOAT")] = None
    """Of each sound at most so much, from its beginning; 10 if left out."""
    levels: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Of a model with levels of codes: a row for the coarsest alone, one with the next, and so on."""
    out: Folder = None
    device: Device = "auto"


def main(arguments: list[str]) -> None:
    """Reconstruct and write."""
    options = parse(Options, arguments, "reconstruct")
    from ancestral.evaluation.reconstruction import as_reconstructing, reconstruct
    from ancestral.evaluation.subject import Subject
    from ancestral.evaluation.tokens import as_tokenizer
    from ancestral.media import Sheet, comparison, write_sheet

    subject = Subject.find(options.run, device(options.device))
    spec = as_reconstructing(subject.model).spec
    levels = len(as_tokenizer(subject.model).code_specs()) if options.levels else 0
    known: list[int | None] = [*range(1, levels + 1)] or [None]
    sound = spec.domain == "sound"
    if options.seconds is not None and not sound:
        raise UserError(f"expected no seconds of a model of {spec.domain}s, got some", "leave --seconds out")
    n = (_SOUNDS if sound else _EXAMPLES) if options.n is None else options.n
    examples = subject.examples(subject.dataset(options.data), options.split, n)
    cut = 0
    if sound and spec.rate is not None:
        examples, cut = _beginnings(examples, _SECONDS if options.seconds is None else options.seconds, spec)
    pairs = [reconstruct(subject.model, examples, n=None, levels=k, progress=True) for k in known]
    x, versions = pairs[0][0], [version for _, version in pairs]
    series = ["original", *(f"{k} of {levels} levels" if k else "reconstruction" for k in known)]
    shown: dict[str, Any] = {"series": series} if sound else {}
    pixels = comparison(spec, x, *versions, lengths=examples.lengths, **shown)
    name = "levels" if options.levels else "reconstructions"
    path = folder(options.run, options.out) / f"{name}.png"
    write_sheet(path, Sheet(pixels, spec, dict(zip(series, (x, *versions), strict=True)), examples.lengths))
    print(written(path))
    if cut:
        print(f"({cut} of the sounds are longer, and were cut: --seconds takes more of each)")
    if len(x) < n:
        print(f"({options.split} has {len(x)} examples only)")


def _beginnings(sounds: Any, seconds: float, spec: Any) -> tuple[Any, int]:
    """The beginnings of sounds, and how many of these are longer."""
    if not seconds * spec.rate >= 1:
        raise UserError(f"expected seconds above 0, got {seconds:g}", "try 10")
    most = round(min(seconds * spec.rate, sounds.x.shape[-1]))
    lengths = sounds.counts if sounds.lengths is None else sounds.lengths
    kept = replace(sounds, x=sounds.x[..., :most], lengths=lengths.clamp(max=most))
    return kept, int((lengths > most).sum())
