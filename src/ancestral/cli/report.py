"""``ancestral report RUN``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ancestral.cli.parse import parse, shown_as
from ancestral.report import write_report


@dataclass(frozen=True)
class Options:
    """Write one HTML page about a run: curves, samples, figures, configuration."""

    run: Annotated[Path, tyro.conf.Positional, shown_as("RUN")]
    """Run directory."""


def main(arguments: list[str]) -> None:
    """Write the page."""
    print(write_report(parse(Options, arguments, "report").run))
