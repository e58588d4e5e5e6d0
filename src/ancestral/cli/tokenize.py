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
    """Turn data into code maps; sounds one by one, as long as they are."""

    run: RunName
    out: Annotated[Path, shown_as("PATH")]
    """Folder to write to: Parquet shards of 10,000 examples (of large maps fewer) that datasets.load_dataset
    opens, with columns level0, level1, …, label and name (docs/codes.md); the same command goes on. Or a
    file: .npy (the codes alone; not of sounds) or .safetensors (levels and labels; its metadata tell the
    split, the names of examples and classes, and the codebooks' sizes). Of sounds the samples of each are
    there too: as column length, or in .safetensors as lengths beside padded codes."""
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
        if manifest.timing is None:
            maps = [((n, *level.shape), level.dtype) for level in manifest.levels]
            print(f"{options.out}: {split} {_shown(maps)}")
        else:
            print(f"{options.out}: {split} {n:,} sounds{_stream(subject.model)}")


def _write_file(subject: Any, data: Any, options: Options) -> None:
    """Tokenize in memory, and write one file."""
    from ancestral.evaluation import write_codes
    from ancestral.evaluation.tokens import timing_of, tokenized

    timing = timing_of(subject.model)
    if timing is not None and options.out.suffix == ".npy":  # said before the work
        problem = f"expected .safetensors for codes of sounds, whose lengths differ, got {options.out.name}"
        raise UserError(problem, "change its ending, or leave it out for a folder")
    codes, labels, lengths = tokenized(subject, data, options.split, show=True)
    about = {
        "data": data.source,
        "split": options.split,
        "names": data.names_of(options.split),
        "classes": data.classes,
        "codebook_size": [level.levels for level in subject.model.code_specs()],
    }
    about |= {} if timing is None else {"rate": timing.rate, "strides": timing.strides}
    write_codes(options.out, codes, labels, about, lengths=lengths)
    shown = _shown([(tuple(level.shape), level.dtype) for level in codes])
    print(f"{options.out}: {shown}{_stream(subject.model)}")


def _stream(model: Any) -> str:
    """Of sounds, how fast codes come."""
    from ancestral.evaluation.tokens import timing_of

    timing = timing_of(model)
    return f"; {timing.said(model.code_specs())}" if timing is not None and timing.rate else ""


def _shown(maps: Sequence[tuple[tuple[int, ...], object]]) -> str:
    """Shape and type of the maps of each level."""
    return ", ".join(f"{shape} {str(dtype).removeprefix('torch.')}" for shape, dtype in maps)
