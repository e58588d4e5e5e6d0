"""What each level of codes adds: examples decoded from the coarser levels alone."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ancestral.batch import Batch
from ancestral.capabilities import Tokenizer
from ancestral.evaluation.measurement import Examined, Result
from ancestral.figures import Figure
from ancestral.media import Pixels, comparison
from ancestral.model import Model

_EXAMPLES = 1000
"""Examples of which finer levels are drawn, value after value."""
_SHOWN = 16


def applies(model: Model) -> bool:
    """Of tokenizers with several levels."""
    return isinstance(model, Tokenizer) and len(model.code_specs()) > 1


def measure(examined: Examined) -> Result:
    """The squared error with the first levels of an example's codes, for each number of them.

    The finer levels are missing, where the decoder was trained to do without, or drawn from their priors,
    where these are trained: with features of zero that it has never met, a decoder puts out a grid.
    """
    model = examined.model
    assert isinstance(model, Tokenizer)
    ways: dict[str, Callable[[Batch, int], Tensor]] = {}
    if model.progressive:
        ways["alone"] = partial(_alone, model)
    if not set(model.level_names) & set(model.untrained):
        generator = torch.Generator(model.device).manual_seed(torch.initial_seed())
        ways["the rest drawn"] = partial(_drawn, model, generator)
    few = Examined(model, examined.some(_EXAMPLES).to("cpu"), progress=examined.progress)
    levels = model.level_names
    figures = [
        _figure(few, levels, known, way, decode)
        for way, decode in ways.items()
        for known in range(1, len(levels))
    ]

    def picture() -> Pixels:
        """Originals, what the first levels give (figure 3 of Razavi et al., 2019), and all of them."""
        shown = examined.some(_SHOWN)
        versions = [decode(shown, k) for decode in ways.values() for k in range(1, len(levels))]
        return comparison(model.spec, shown.x, *versions, model.reconstruct(shown.x))

    return Result(figures=figures, pictures={"levels": picture} if ways else {})


def _alone(model: Tokenizer, batch: Batch, known: int) -> Tensor:
    return model.detokenize(model.tokenize(batch.x)[:known])


def _drawn(model: Tokenizer, generator: torch.Generator, batch: Batch, known: int) -> Tensor:
    labels = batch.labels if model.sample_classes else None
    return model.detokenize(model.finer(model.tokenize(batch.x)[:known], labels, generator=generator))


def _figure(
    examined: Examined, levels: tuple[str, ...], known: int, way: str, decode: Callable[[Batch, int], Tensor]
) -> Figure:
    peak = (examined.model.spec.levels or 2) - 1

    def error(batch: Batch) -> Tensor:
        return (decode(batch, known).double() - batch.x.double()).square().flatten(1).mean(1) / peak**2

    names = " + ".join(levels[:known])
    errors = examined.each(f"{names}, {way}", error)
    return Figure(
        id=f"levels_mse_{known}_{way.rsplit(maxsplit=1)[-1]}",
        name=f"MSE of {names}, {way}",
        value=float(errors.mean()),
        standard_error=float(errors.std() / len(errors) ** 0.5) if len(errors) > 1 else None,
        quantity="squared error",
        better="lower",
        note="on 0..1" + (f", {len(errors):,} examples" if len(errors) >= _EXAMPLES else ""),
    )
