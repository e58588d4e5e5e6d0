"""``ancestral reconstruct RUN``."""

from dataclasses import dataclass

from ancestral.cli.options import DataName, Device, Folder, RunName, SplitName, device, folder
from ancestral.cli.parse import parse


@dataclass(frozen=True)
class Options:
    """Put originals beside the model's versions of them."""

    run: RunName
    data: DataName = None
    split: SplitName = "test"
    n: int = 32
    """Number of examples."""
    out: Folder = None
    device: Device = "auto"


def main(arguments: list[str]) -> None:
    """Reconstruct and write."""
    options = parse(Options, arguments, "reconstruct")
    from ancestral.evaluation import reconstruct
    from ancestral.evaluation.subject import Subject
    from ancestral.media import comparison, write_png

    subject = Subject.find(options.run, device(options.device))
    x, versions = reconstruct(
        subject.model, subject.dataset(options.data), split=options.split, n=options.n, progress=True
    )
    path = folder(options.run, options.out) / "reconstructions.png"
    write_png(path, comparison(subject.model.spec, x, versions))
    print(path)
    if len(x) < options.n:
        print(f"({options.split} has {len(x)} examples only)")
