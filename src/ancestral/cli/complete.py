"""``ancestral complete RUN``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from ancestral.cli.options import (
    DataName,
    Device,
    Folder,
    RunName,
    SamplingOptions,
    SplitName,
    device,
    file_name,
    folder,
    written,
)
from ancestral.cli.parse import parse, shown_as
from ancestral.errors import UserError
from ancestral.sampling import Sampling, single


@dataclass(frozen=True)
class Options:
    """Draw the rest of images that are known in part, or of a sound that begins.

    The sheet shows what was given and what became of it; sounds lie beside it.
    """

    run: RunName
    data: DataName = None
    split: SplitName = "test"
    n: Annotated[int | None, shown_as("INT"), tyro.conf.arg(aliases=["-n"])] = None
    """Number of examples, 16 if left out; of sounds, of continuations of the file, 1 if left out."""
    rows: Annotated[int | None, shown_as("INT")] = None
    """Upper rows that stay; half of them if left out."""
    hole: Annotated[tuple[int, int, int, int] | None, shown_as("INT INT INT INT")] = None
    """Draw a rectangle instead: its top, left, height and width."""
    prefix: Annotated[Path | None, shown_as("FILE")] = None
    """Of a model of sounds: the file (.wav, .flac, .ogg) that it continues."""
    seconds: Annotated[float | None, shown_as("FLOAT")] = None
    """How long sounds are in all; if left out, as much longer than the prefix as an example of the
    training is."""
    labels: Annotated[tuple[str, ...], shown_as("CLASS [CLASS ...]")] = ()
    """Classes of continuations by name or number, repeated in turn; random ones if left out."""
    sampling: SamplingOptions = field(default_factory=Sampling)
    seed: int = 0
    """The same seed gives the same values."""
    out: Folder = None
    device: Device = "auto"


def main(arguments: list[str]) -> None:
    """Complete and write."""
    options = parse(Options, arguments, "complete")
    if options.rows is not None and options.hole is not None:
        raise UserError("expected --rows or --hole, got both", "leave one of them out")
    from ancestral.evaluation.sampling import as_completing
    from ancestral.evaluation.subject import Subject

    subject = Subject.find(options.run, device(options.device))
    as_completing(subject.model).check_sampling(options.sampling)
    if subject.model.spec.domain == "sound":
        _check_unused(options, "sounds", ("rows", "hole", "data"), "name a file with --prefix")
        _continue(subject, options)
    else:
        _check_unused(options, "images", ("prefix", "seconds", "labels"), "keep --rows, or leave a --hole")
        _complete(subject, options)


def _check_unused(options: Options, of: str, names: Sequence[str], remedy: str) -> None:
    """Raise UserError for an option that means something to other models."""
    if given := [name for name in names if getattr(options, name) not in (None, ())]:
        raise UserError(f"expected no --{given[0]} for a model of {of}, got one", remedy)


def _continue(subject: Any, options: Options) -> None:
    """Let a model of sounds continue a file."""
    from ancestral.data import load_sound
    from ancestral.evaluation import continue_sound
    from ancestral.media import Sheet, picture, write_sheet

    model, spec, how = subject.model, subject.model.spec, options.sampling
    if options.prefix is None:
        raise UserError("expected the beginning of a sound, got none", "name a file with --prefix")
    prefix, note = load_sound(options.prefix, spec)
    if note:
        print(f"{options.prefix}: {note}")
    seconds = options.seconds
    if seconds is None:
        seconds = (prefix.shape[-1] + spec.shape[-1]) / (spec.rate or 1)
    x = continue_sound(
        subject.run or model,
        prefix,
        seconds,
        1 if options.n is None else options.n,
        options.labels,
        temperature=single(how.temperature),
        top_k=single(how.top_k),
        top_p=single(how.top_p),
        seed=options.seed,
        device=model.device,
        progress=True,
    )
    name = f"continuations-{options.prefix.stem}-seed{options.seed}"
    name += f"-{options.seconds:g}s" if options.seconds is not None else ""
    name += "".join(f"-{label}" for label in options.labels)
    path = folder(options.run, options.out) / f"{file_name(name)}.png"
    heads = [options.labels[i % len(options.labels)] for i in range(len(x))] if options.labels else []
    write_sheet(path, Sheet(picture(spec, x, heads=heads, mark=prefix.shape[-1]), spec, {"": x}))
    print(written(path))


def _complete(subject: Any, options: Options) -> None:
    """Draw the rest of images."""
    import torch

    from ancestral.evaluation import complete
    from ancestral.evaluation.sampling import upper_rows
    from ancestral.media import comparison, write_png

    spec, how, n = subject.model.spec, options.sampling, 16 if options.n is None else options.n
    if len(spec.shape) != 3:
        raise UserError(
            f"expected a model of images, got one of {spec.shape}", "use ancestral.complete from Python"
        )
    known = upper_rows(spec, spec.shape[1] // 2 if options.rows is None else options.rows)
    if options.hole is not None:
        top, left, height, width = options.hole
        if (
            min(top, left) < 0
            or min(height, width) < 1
            or top + height > spec.shape[1]
            or left + width > spec.shape[2]
        ):
            raise UserError(
                f"expected a hole within {spec.shape[1]}x{spec.shape[2]}, got {options.hole}",
                "give top, left, height, width",
            )
        known = torch.ones(spec.shape, dtype=torch.bool)
        known[:, top : top + height, left : left + width] = False
    x, completed = complete(
        subject.run or subject.model,
        options.data,
        known,
        split=options.split,
        n=n,
        temperature=single(how.temperature),
        top_k=single(how.top_k),
        top_p=single(how.top_p),
        seed=options.seed,
        device=subject.model.device,
        progress=True,
    )
    given = torch.where(known, x, spec.discrete_levels // 2)
    path = folder(options.run, options.out) / f"completions-seed{options.seed}.png"
    write_png(path, comparison(spec, x, given, completed))
    print(path)
    if len(x) < n:
        print(f"({options.split} has {len(x)} examples only)")
