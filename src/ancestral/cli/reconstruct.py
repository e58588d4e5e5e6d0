"""``ancestral reconstruct RUN``."""

from dataclasses import dataclass
from typing import Annotated, Any

import tyro

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
    from ancestral.media import comparison, write_png

    subject = Subject.find(options.run, device(options.device))
    how: dict[str, Any] = {"split": options.split, "n": options.n, "progress": True}
    known = range(1, len(as_tokenizer(subject.model).code_specs()) + 1) if options.levels else (None,)
    data = subject.dataset(options.data)
    pairs = [reconstruct(subject.model, data, levels=levels, **how) for levels in known]
    x, versions = pairs[0][0], [version for _, version in pairs]
    name = "levels" if options.levels else "reconstructions"
    path = folder(options.run, options.out) / f"{name}.png"
    write_png(path, comparison(subject.model.spec, x, *versions))
    print(path)
    if len(x) < options.n:
        print(f"({options.split} has {len(x)} examples only)")
