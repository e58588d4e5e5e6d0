"""Options that several commands have."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ancestral.cli.parse import shown_as
from ancestral.clips import clips
from ancestral.errors import UserError
from ancestral.sampling import Sampling

RunName = Annotated[
    str, tyro.conf.Positional, shown_as("RUN"), tyro.conf.arg(help="Run directory, model folder or Hub name.")
]
DataName = Annotated[
    str | None,
    shown_as("DATA"),
    tyro.conf.arg(help="Data to use, brought to what the model takes; the run's own if left out."),
]
SplitName = Annotated[
    Literal["train", "validation", "test", "all"],
    tyro.conf.arg(help="Which examples; all: one split after another."),
]
Folder = Annotated[
    Path | None,
    shown_as("FOLDER"),
    tyro.conf.arg(
        help="Folder to write to; samples/ in the run directory if there is one, else the current folder."
    ),
]
SamplingOptions = Annotated[Sampling, tyro.conf.arg(name="", help="How to draw.")]
"""How to draw, as flags without a prefix."""
Device = Annotated[Literal["auto", "cpu", "cuda"], tyro.conf.arg(help="Where to compute.")]


def folder(run: str, out: Path | None) -> Path:
    """Where a command's pictures go."""
    if out is not None:
        return out
    return Path(run) / "samples" if (Path(run) / "run.json").is_file() else Path()


def file_name(text: str) -> str:
    """A text as a part of the name of a file, cut where that would be too long for a disk.

    >>> file_name("conversions-Zoë B.")
    'conversions-Zoë_B.'
    """
    return re.sub(r"[^\w.+-]", "_", text)[:60]


def written(path: Path) -> str:
    """What a command says of a picture that it wrote: where it is, and the sounds beside it."""
    sounds = path.with_suffix("")
    return f"{path}\n{sounds / '*.wav'}" if path.suffix == ".png" and clips(sounds) else str(path)


def device(choice: str) -> Any:
    """The torch device of ``auto``, ``cpu`` or ``cuda``; auto takes a GPU where there is one."""
    import torch

    if choice == "cuda" and not torch.cuda.is_available():
        raise UserError("expected a CUDA device, got none", "choose --device auto")
    if choice == "auto":
        choice = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(choice)
