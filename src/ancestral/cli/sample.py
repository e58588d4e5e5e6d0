"""``ancestral sample RUN``."""

from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal

from ancestral.cli.options import Device, Folder, RunName, SamplingOptions, device, folder
from ancestral.cli.parse import parse, shown_as
from ancestral.evaluation import sample
from ancestral.media import write_examples
from ancestral.model import Sampling
from ancestral.runs import load


@dataclass(frozen=True)
class Options:
    """Draw from a trained model."""

    run: RunName
    n: int = 64
    """Number of samples."""
    labels: Annotated[tuple[int, ...], shown_as("INT [INT ...]")] = ()
    """Classes, repeated in turn; without them the model draws classes at random."""
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
    model = load(options.run, device(options.device))
    how = options.sampling
    x, labels = sample(model, options.n, options.labels, **asdict(how), seed=options.seed, progress=True)
    name = f"samples-seed{options.seed}"
    name += f"-t{how.temperature:g}" if how.temperature != 1 else ""
    name += f"-top{how.top_k}" if how.top_k is not None else ""
    name += f"-p{how.top_p:g}" if how.top_p is not None else ""
    name += f"-truncated{how.truncation:g}" if how.truncation is not None else ""
    name += "-class" + "-".join(map(str, options.labels)) if options.labels else ""
    where = folder(options.run, options.out)
    print(write_examples(where, name, x, model.spec, labels, kind=options.format))
