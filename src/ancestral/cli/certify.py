"""``ancestral certify RUN``."""

import sys
from dataclasses import dataclass
from typing import Annotated

from ancestral.cli.options import Folder, RunName, folder
from ancestral.cli.parse import parse, shown_as
from ancestral.errors import UserError, check_at_least

_MOST = 512
"""Values of a sound whose pairs are tried, in minutes."""


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
    length: Annotated[int | None, shown_as("INT")] = None
    """Of a model of sounds, the values of an example, each of which is tried; 512 of longer ones if left out.
    The weights are the same at any length."""
    out: Folder = None


def main(arguments: list[str]) -> None:
    """Examine, print the findings and draw them."""
    options = parse(Options, arguments, "certify")
    from ancestral.capabilities import Lengthens
    from ancestral.evaluation.certificate import certify
    from ancestral.evaluation.lengths import shortened
    from ancestral.models.autoregressive.base import Autoregressive
    from ancestral.progress import bar
    from ancestral.runs import load

    model = load(options.run)
    if options.length is not None:
        check_at_least(2, length=options.length)
        if not isinstance(model, Lengthens):
            problem = f"expected no length for a {type(model).__name__}, got one"
            raise UserError(problem, "leave --length out: it is for models of sounds")
    networks = {name: part for name, part in model.named_modules() if isinstance(part, Autoregressive)}
    if not networks:
        raise UserError(
            f"expected an autoregressive model, got {type(model).__name__}", "ancestral models lists them"
        )
    out, causal = folder(options.run, options.out), True
    for name, trained in networks.items():
        network = shortened(trained, options.length or _MOST)
        with bar(f"certifying {name}".rstrip()) as progress:
            certificate = certify(network, trials=options.trials, progress=progress)
        if name:
            print(f"{name}:")
        print(certificate)
        whole, tried = (found.spec.shape[-1] for found in (trained, network))
        if tried < whole:
            print(f"(of {tried:,} values, where an example has {whole:,}: --length tries more)")
        suffix = f"-{name}" if len(networks) > 1 else ""
        print(certificate.picture(out / f"receptive-field{suffix}.png"))
        causal &= certificate.causal
    if not causal:
        sys.exit(1)
