"""``ancestral compare RUN …``."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from ancestral.cli.parse import parse, shown_as
from ancestral.report.comparison import Comparison


@dataclass(frozen=True)
class Options:
    """Print the figures of several runs side by side; * marks the best of a row."""

    runs: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        shown_as("RUN [RUN ...]"),
        tyro.conf.arg(help="Run directories, evaluated on the same data."),
    ]


def main(arguments: list[str]) -> None:
    """Print the table."""
    options = parse(Options, arguments, "compare")
    comparison = Comparison.of(options.runs)
    console = Console()
    whole = not console.is_terminal and "COLUMNS" not in os.environ  # a row a line, for grep
    print(comparison if whole else comparison.text(console.width))
