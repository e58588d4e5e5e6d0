"""What each level of codes adds: examples as the first levels alone have them."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ancestral.batch import Batch
from ancestral.capabilities import Tokenizer
from ancestral.evaluation.measurement import MOST_CLASSES, Examined, Result
from ancestral.figures import Figure
from ancestral.media import Pixels, comparison
from ancestral.model import Model

_DRAWN = 1000
"""Examples of which finer levels are drawn."""
_SHOWN = 16

Decode = Callable[[Batch, int], Tensor]
"""Examples from the first so many levels of a batch's codes."""


def applies(model: Model) -> bool:
    """Of tokenizers with several levels."""
    return isinstance(model, Tokenizer) and len(model.code_specs()) > 1


def measure(examined: Examined) -> Result:
    """The squared error with the first levels of the codes, for each number of them, and the decoder's cost.

    The finer levels are missing, where the decoder was trained to do without; and, if this measure is asked
    for by name, drawn from their priors, value after value. With features of zero that it has never met, a
    decoder puts out a grid: of a decoder that knows no missing levels nothing else can be said.
    """
    model = examined.model
    assert isinstance(model, Tokenizer)
    names, ways, left_out = model.level_names, dict[str, tuple[str, Decode]](), list[str]()
    figures: list[Figure] = []
    if model.progressive:
        ways["alone"] = "alone", partial(_alone, model)
        if model.likelihood != "none":
            figures += [_cost(examined, model, known) for known in range(1, len(names))]
    if reason := _not_drawn(examined, model):
        left_out.append(f"left out: what drawn finer levels add, since {reason}")
    else:
        generator = torch.Generator(model.device).manual_seed(torch.initial_seed())
        ways["drawn"] = "the rest drawn", partial(_drawn, model, generator)
    for id, (words, decode) in ways.items():
        few = Examined(model, examined.examples.some(_DRAWN), progress=examined.progress)
        subject = few if id == "drawn" else examined
        figures += [_error(subject, names[:known], id, words, decode) for known in range(1, len(names))]

    def picture() -> Pixels:
        """Originals, what the first levels give (figure 3 of Razavi et al., 2019), and all of them."""
        shown = examined.some(_SHOWN)
        versions = [decode(shown, known) for _, decode in ways.values() for known in range(1, len(names))]
        return comparison(model.spec, shown.x, *versions, model.reconstruct(shown.x))

    return Result(figures=figures, left_out=left_out, pictures={"levels": picture} if ways else {})


def _not_drawn(examined: Examined, model: Tokenizer) -> str:
    """Why finer levels are not drawn; nothing if they are."""
    if "levels" not in examined.named:
        return "it takes samples: add --measures levels"
    if missing := [name for name in model.level_names if name in model.untrained]:
        return f"the prior of {' and '.join(missing)} is not trained"
    if model.sampling_levels < len(model.level_names):
        return f"{type(model).__name__} does not draw them"
    if examined.examples.labels is None and model.sample_classes > MOST_CLASSES:
        return f"the examples have no labels and the priors {model.sample_classes} classes"
    return ""


def _alone(model: Tokenizer, batch: Batch, known: int) -> Tensor:
    return model.detokenize(model.tokenize(batch.x)[:known])


def _drawn(model: Tokenizer, generator: torch.Generator, batch: Batch, known: int) -> Tensor:
    labels = batch.labels if model.sample_classes else None
    return model.detokenize(model.finer(model.tokenize(batch.x)[:known], labels, generator=generator))


def _error(examined: Examined, names: tuple[str, ...], id: str, words: str, decode: Decode) -> Figure:
    peak = (examined.model.spec.levels or 2) - 1
    first = " + ".join(names)

    def error(batch: Batch) -> Tensor:
        difference = decode(batch, len(names)).double() - batch.x.double()
        return difference.square().flatten(1).mean(1) / peak**2

    errors = examined.each(f"{first}, {words}", error)
    return Figure(
        id=f"levels_mse_{len(names)}_{id}",
        name=f"MSE of {first}, {words}",
        value=float(errors.mean()),
        standard_error=float(errors.std() / len(errors) ** 0.5) if len(errors) > 1 else None,
        quantity="squared error",
        better="lower",
        note=f"on 0..1, {len(errors):,} examples",
    )


def _cost(examined: Examined, model: Tokenizer, known: int) -> Figure:
    """-log p(x | the first levels)."""
    first = " + ".join(model.level_names[:known])
    codes = examined.codes[:known]

    def cost(batch: Batch, *levels: Tensor) -> Tensor:
        return model.distortion(batch, tuple(level.long() for level in levels))

    nats = examined.each(f"decoder, {first}", cost, *codes).double()
    return Figure.of_nats(
        f"decoder_levels_{known}", f"decoder, given {first} alone", nats, model.spec,
        quantity="distortion", kind="measure",
    )  # fmt: skip
