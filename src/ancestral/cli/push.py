"""``ancestral push RUN OWNER/NAME``."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from ancestral.cli.parse import parse, shown_as


@dataclass(frozen=True)
class Options:
    """Upload a trained model to the Hugging Face Hub; log in with hf auth login."""

    run: Annotated[str, tyro.conf.Positional, shown_as("RUN")]
    """Run directory or model folder."""
    name: Annotated[str, tyro.conf.Positional, shown_as("OWNER/NAME")]
    """Repository to upload to; made if it is not there."""
    private: tyro.conf.FlagCreatePairsOff[bool] = False
    """Make the repository private."""


def main(arguments: list[str]) -> None:
    """Upload."""
    options = parse(Options, arguments, "push")
    from ancestral.runs import load

    print(load(options.run).push_to_hub(options.name, private=options.private))
