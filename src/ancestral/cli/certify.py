"""``ancestral certify RUN``."""

import sys
from dataclasses import dataclass

from ancestral.cli.options import Folder, RunName, folder
from ancestral.cli.parse import parse
from ancestral.errors import UserError
from ancestral.evaluation.certificate import certify
from ancestral.models.autoregressive.base import Autoregressive
from ancestral.progress import bar
from ancestral.runs import load


@dataclass(frozen=True)
class Options:
    """Find what an autoregressive network sees: leaks of the future, blind spots.

    It is examined with weights at random; of a tokenizer, its prior is.

    Exit status 1 if anything leaks, or if training mode gives other outputs.
    """

    run: RunName
    trials: int = 4
    """Networks with other random weights whose views are joined: too few, and dead units look like blind
    spots."""
    out: Folder = None


def main(arguments: list[str]) -> None:
    """Examine, print the findings and draw them."""
    options = parse(Options, arguments, "certify")
    model = load(options.run)
    subject = getattr(model, "prior", model)
    if not isinstance(subject, Autoregressive):
        raise UserError(
            f"expected an autoregressive model, got {type(model).__name__}", "ancestral models lists them"
        )
    with bar("certifying") as progress:
        certificate = certify(subject, trials=options.trials, progress=progress)
    print(certificate)
    print(certificate.picture(folder(options.run, options.out) / "receptive-field.png"))
    if not certificate.causal:
        sys.exit(1)
