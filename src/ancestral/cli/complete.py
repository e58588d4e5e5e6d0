"""``ancestral complete RUN``."""

from dataclasses import dataclass, field
from typing import Annotated

from ancestral.cli.options import (
    DataName,
    Device,
    Folder,
    RunName,
    SamplingOptions,
    SplitName,
    device,
    folder,
)
from ancestral.cli.parse import parse, shown_as
from ancestral.errors import UserError
from ancestral.sampling import Sampling, single


@dataclass(frozen=True)
class Options:
    """Draw the rest of images that are known in part: below a row, or in a hole.

    The sheet shows originals, what the model was given, and what it made of it.
    """

    run: RunName
    data: DataName = None
    split: SplitName = "test"
    n: int = 16
    """Number of examples."""
    rows: Annotated[int | None, shown_as("INT")] = None
    """Upper rows that stay; half of them if left out."""
    hole: Annotated[tuple[int, int, int, int] | None, shown_as("INT INT INT INT")] = None
    """Draw a rectangle instead: its top, left, height and width."""
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
    import torch

    from ancestral.evaluation import complete
    from ancestral.evaluation.sampling import as_completing, upper_rows
    from ancestral.evaluation.subject import Subject
    from ancestral.media import comparison, write_png

    subject = Subject.find(options.run, device(options.device))
    spec, how = subject.model.spec, options.sampling
    as_completing(subject.model).check_sampling(how)
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
        n=options.n,
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
    if len(x) < options.n:
        print(f"({options.split} has {len(x)} examples only)")
