"""The codes of a tokenizer: what an example costs in codes and decoder, and how codebooks are used."""

import math
from functools import partial

import torch
from torch import Tensor

from ancestral.batch import Batch
from ancestral.capabilities import Tokenizer
from ancestral.evaluation.measurement import Condition, Examined, Result
from ancestral.figures import Codebook, Figure, Kind
from ancestral.model import Model
from ancestral.nn.quantize import perplexity
from ancestral.spec import Spec
from ancestral.units import bits


def applies(model: Model) -> bool:
    """Of tokenizers."""
    return isinstance(model, Tokenizer)


def measure(examined: Examined) -> Result:
    """The cost of an example is -log p(codes) - log p(x|codes), where the decoder has a likelihood."""
    tokenizer = examined.model
    assert isinstance(tokenizer, Tokenizer)
    rates = {
        condition: examined.each("prior", partial(_rates, tokenizer, condition), *examined.codes).double()
        for condition in examined.conditions
    }
    distortion = None
    if tokenizer.likelihood != "none":
        distortion = examined.each("decoder", partial(_distortion, tokenizer), *examined.codes).double()
    figures = _costs(tokenizer, rates, distortion)
    specs = tokenizer.code_specs()
    for condition, rate in rates.items():
        figures += [_per_code(i, specs, rate[:, i], condition) for i in range(len(specs))]
    levels = zip(specs, examined.codes, strict=True)
    codebooks = [_codebook(spec, part) for spec, codes in levels for part in codes.unbind(1)]
    figures += [_use(i, codebooks) for i in range(len(codebooks))]
    return Result(figures=figures, codebooks=codebooks)


def _rates(tokenizer: Tokenizer, condition: Condition, batch: Batch, *codes: Tensor) -> Tensor:
    """Nats of each level's codes, ``(N, levels)``."""
    return torch.stack(tokenizer.rates(tuple(level.long() for level in codes), condition(batch).labels), 1)


def _distortion(tokenizer: Tokenizer, batch: Batch, *codes: Tensor) -> Tensor:
    return tokenizer.distortion(batch.x, tuple(level.long() for level in codes))


def _costs(tokenizer: Tokenizer, rates: dict[Condition, Tensor], distortion: Tensor | None) -> list[Figure]:
    """What codes and decoder cost, together and each."""
    figures: list[Figure] = []

    def add(id: str, name: str, nats: Tensor, quantity: str, *, bound: bool = False, note: str = "") -> None:
        kind: Kind = "bound" if bound else "measure"
        figures.append(
            Figure.of_nats(id, name, nats, tokenizer.spec, quantity=quantity, kind=kind, note=note)
        )

    total = "negative log-likelihood"
    if distortion is not None:
        for c, rate in rates.items():
            name = f"negative ELBO{c.words or ' (codes + decoder)'}"
            cost = distortion + rate.sum(1)
            add(f"nelbo_codes_decoder{c.suffix}", name, cost, total + c.words, bound=True, note=c.note)
        uniform = sum(spec.dims * math.log(spec.discrete_levels) for spec in tokenizer.code_specs())
        add("nelbo_uniform_prior", "negative ELBO, uniform prior", distortion + uniform, total, bound=True)
        add("decoder", "decoder, given the codes", distortion, "distortion")
    for c, rate in rates.items():
        add(f"codes{c.suffix}", f"codes{c.words or ' under the prior'}", rate.sum(1), f"rate{c.words}")
    return figures


def _per_code(i: int, specs: tuple[Spec, ...], rate: Tensor, condition: Condition) -> Figure:
    """The mean of nats ``(N,)`` of level ``i``, for each of its codes."""
    spec = specs[i]
    level = "" if len(specs) == 1 else f" of level {i}"
    return Figure(
        id=f"prior_level{i}{condition.suffix}",
        name=f"prior{level}{condition.words}, a code",
        value=bits(float(rate.mean())) / spec.dims,
        quantity=f"rate of a code{condition.words}",
        unit="bits/code",
        kind="exact",
        better="lower",
        note=f"uniform: {math.log2(spec.discrete_levels):.3g}",
    )


def _codebook(spec: Spec, codes: Tensor) -> Codebook:
    usage = torch.bincount(codes.flatten(), minlength=spec.discrete_levels)
    return Codebook(
        size=len(usage),
        used=int((usage > 0).sum()),
        perplexity=float(perplexity(usage)),
        usage=usage.tolist(),
    )


def _use(i: int, codebooks: list[Codebook]) -> Figure:
    book = codebooks[i]
    return Figure(
        id=f"codebook_perplexity_{i}",
        name="codebook perplexity" if len(codebooks) == 1 else f"codebook perplexity {i + 1}",
        value=book.perplexity,
        quantity="code use",
        unit="codes",
        better="higher",
        note=f"{book.used} of {book.size}",
    )
