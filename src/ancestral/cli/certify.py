"""``ancestral certify RUN``."""

import sys
from dataclasses import dataclass

from ancestral.cli.options import Folder, RunName, folder
from ancestral.cli.parse import parse
from ancestral.errors import UserError


@dataclass(frozen=True)
class Options:
    """Find what an autoregressive network sees: leaks of the future, blind spots.

    It is examined with weights at random; of a tokenizer, each of its priors is.

    Exit status 1 if anything leaks or is random, or if training mode differs.
    """

    run: RunName
    trials: int = 4
    """Networks with other random weights whose views are joined: too few, and dead units look like blind
    spots."""
    out: Folder = None


def main(arguments: list[str]) -> None:
    """Examine, print the findings and draw them."""
    options = parse(Options, arguments, "certify")
    from ancestral.evaluation.certificate import certify
    from ancestral.models.autoregressive.base import Autoregressive
    from ancestral.progress import bar
    from ancestral.runs import load

    model = load(options.run)
    networks = {name: part for name, part in model.named_modules() if isinstance(part, Autoregressive)}
    if not networks:
        raise UserError(
            f"expected an autoregressive model, got {type(model).__name__}", "ancestral models lists them"
        )
    out, causal = folder(options.run, options.out), True
    for name, network in networks.items():
        with bar(f"certifying {name}".rstrip()) as progress:
            certificate = certify(network, trials=options.trials, progress=progress)
        if name:
            print(f"{name}:")
        print(certificate)
        suffix = f"-{name}" if len(networks) > 1 else ""
        print(certificate.picture(out / f"receptive-field{suffix}.png"))
        causal &= certificate.causal
    if not causal:
        sys.exit(1)
