"""``ancestral push RUN OWNER/NAME``."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from ancestral.cli.parse import parse
from ancestral.runs import load


@dataclass(frozen=True)
class Options:
    """Upload a trained model to the Hugging Face Hub, with the token of ``hf auth login`` or of HF_TOKEN."""

    run: Annotated[str, tyro.conf.Positional]
    """Run directory or model folder."""
    name: Annotated[str, tyro.conf.Positional]
    """Repository, OWNER/NAME."""
    private: bool = False
    """Make the repository private."""


def main(arguments: list[str]) -> None:
    """Upload."""
    options = parse(Options, arguments, "push")
    print(load(options.run).push_to_hub(options.name, private=options.private))
