"""``ancestral tokenize RUN --out codes``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from ancestral.cli.options import DataName, Device, RunName, SplitName, device
from ancestral.cli.parse import parse, shown_as
from ancestral.errors import UserError
from ancestral.processes import own_process


@dataclass(frozen=True)
class Options:
    """Turn data into code maps."""

    run: RunName
    out: Annotated[Path, shown_as("PATH")]
    """Folder to write to: Parquet shards of 10,000 examples (of large maps fewer) that datasets.load_dataset
    opens, with columns level0, level1, …, label and name (docs/codes.md); the same command goes on. Or a
    file: .npy (the codes alone) or .safetensors (levels and labels; its metadata tell the split, the names of
    examples and classes, and the codebooks' sizes)."""
    data: DataName = None
    split: SplitName = "train"
    device: Device = "auto"


def main(arguments: list[str]) -> None:
    """Tokenize and write."""
    options = parse(Options, arguments, "tokenize")
    from ancestral.evaluation.code_files import is_codes_folder
    from ancestral.evaluation.shards import own_device
    from ancestral.evaluation.subject import Subject
    from ancestral.evaluation.tokens import as_tokenizer

    folder = is_codes_folder(options.out)
    if not folder and (processes := own_process()[1]) > 1:
        problem = f"expected one process to write {options.out}, got {processes}"
        raise UserError(problem, "leave the ending out for a folder, whose shards they share")
    if not folder and options.out.exists():
        raise UserError(
            f"expected a new file, got {options.out} which is there already", "choose another --out"
        )
    subject = Subject.find(options.run, own_device(device(options.device)))
    as_tokenizer(subject.model)  # before data are loaded
    (_write_shards if folder else _write_file)(subject, subject.dataset(options.data), options)


def _write_shards(subject: Any, data: Any, options: Options) -> None:
    """Make this process's share of the shards, and say what is there: of several processes, how many."""
    from ancestral.cli.processes import take_part
    from ancestral.evaluation import tokenize_shards

    take_part()
    shards = tokenize_shards(subject.model, options.out, data, split=options.split, progress=True)
    manifest, (rank, world) = shards.manifest, own_process()
    if world > 1:
        parts = manifest.parts()
        own = len(parts[rank::world])
        print(f"{options.out}: process {rank} of {world} is done with its {own} of {len(parts)} shards")
        return
    for split, n in manifest.splits.items():
        maps = [((n, *level.shape), level.dtype) for level in manifest.levels]
        print(f"{options.out}: {split} {_shown(maps)}")


def _write_file(subject: Any, data: Any, options: Options) -> None:
    """Tokenize in memory, and write one file."""
    from ancestral.evaluation import tokenize, write_codes

    codes, labels = tokenize(subject.model, data, split=options.split, progress=True)
    about = {
        "data": data.source,
        "split": options.split,
        "names": data.names_of(options.split),
        "classes": data.classes,
        "codebook_size": [level.levels for level in subject.model.code_specs()],
    }
    write_codes(options.out, codes, labels, about)
    print(f"{options.out}: {_shown([(tuple(level.shape), level.dtype) for level in codes])}")


def _shown(maps: Sequence[tuple[tuple[int, ...], object]]) -> str:
    """Shape and type of the maps of each level."""
    return ", ".join(f"{shape} {str(dtype).removeprefix('torch.')}" for shape, dtype in maps)
