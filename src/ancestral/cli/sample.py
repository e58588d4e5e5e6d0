"""``ancestral sample RUN``."""

import math
import re
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from ancestral.cli.options import Device, Folder, RunName, SamplingOptions, device, folder
from ancestral.cli.parse import parse, shown_as
from ancestral.sampling import Sampling

_MOST_COLUMNS = 16


@dataclass(frozen=True)
class Options:
    """Draw from a trained model."""

    run: RunName
    n: int = 64
    """Number of samples."""
    labels: Annotated[tuple[str, ...], shown_as("CLASS [CLASS ...]")] = ()
    """Classes by name or number, repeated in turn; without them the model draws classes at random."""
    sampling: SamplingOptions = field(default_factory=Sampling)
    seed: int = 0
    """The same seed gives the same samples."""
    format: Literal["sheet", "files", "npz"] = "sheet"
    """One PNG sheet, a PNG file each, or one .npz with x and labels."""
    out: Folder = None
    device: Device = "auto"


def main(arguments: list[str]) -> None:
    """Sample and write."""
    options = parse(Options, arguments, "sample")
    from ancestral.evaluation import sample
    from ancestral.media import write_examples
    from ancestral.runs import load

    model = load(options.run, device(options.device))
    how = options.sampling
    x, labels = sample(model, options.n, options.labels, **asdict(how), seed=options.seed, progress=True)
    name = f"samples-seed{options.seed}"
    name += f"-t{how.temperature:g}" if how.temperature != 1 else ""
    name += f"-top{how.top_k}" if how.top_k is not None else ""
    name += f"-p{how.top_p:g}" if how.top_p is not None else ""
    name += f"-truncated{how.truncation:g}" if how.truncation is not None else ""
    if options.labels:
        name += "-class" + "-".join(re.sub(r"[^\w.+-]", "_", label) for label in options.labels)
    columns, heads = _by_class(model, options.n, labels, len(options.labels))
    where = folder(options.run, options.out)
    path = write_examples(
        where, name, x, model.spec, labels, kind=options.format, columns=columns, heads=heads
    )
    print(path)


def _by_class(model: Any, n: int, labels: Any, given: int) -> tuple[int | None, list[str]]:
    """How many columns a sheet has for each of the given classes to fill its own, and their names."""
    if not 1 < given <= min(n, _MOST_COLUMNS):
        return None, []
    columns = given * max(1, round(math.sqrt(n) / given))
    numbers = labels[: min(n, columns)].tolist()
    return len(numbers), [model.classes[i] if model.classes else str(i) for i in numbers]
