"""The codes of a tokenizer: what an example costs in codes and decoder, and how codebooks are used."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ancestral.batch import Batch
from ancestral.capabilities import Converts, Tokenizer
from ancestral.evaluation.measurement import Condition, Each, Examined, Result
from ancestral.figures import Codebook, Figure, Kind
from ancestral.model import Model
from ancestral.nn.quantize import perplexity
from ancestral.spec import Spec
from ancestral.units import bits


def applies(model: Model) -> bool:
    """Of tokenizers."""
    return isinstance(model, Tokenizer)


def measure(examined: Examined) -> Result:
    """The cost of an example is -log p(codes) - log p(x|codes), where the decoder has a likelihood.

    What takes a prior that is not trained is left out.
    """
    tokenizer = examined.model
    assert isinstance(tokenizer, Tokenizer)
    levels = {condition: _measurable(tokenizer, condition) for condition in examined.conditions}
    rates = {
        condition: examined.each("prior", partial(_rates, tokenizer, condition), *examined.codes).double()
        for condition in examined.conditions
        if any(levels[condition])
    }
    distortions: dict[Condition, Tensor] = {}
    if tokenizer.likelihood != "none":
        told = examined.conditions if isinstance(tokenizer, Converts) else examined.conditions[:1]
        for c in told:
            given = partial(_distortion, tokenizer, c)
            distortions[c] = examined.each("decoder", given, *examined.codes).double()
    whole = {c: rate for c, rate in rates.items() if all(levels[c])}
    figures = _costs(examined, tokenizer, whole, distortions)
    specs = tokenizer.code_specs()
    for condition, rate in rates.items():
        known = [i for i in range(len(specs)) if levels[condition][i]]
        figures += [
            _per_code(tokenizer, i, rate[:, i], _numbers(examined.codes[i]), condition) for i in known
        ]
    figures += _streams(examined, tokenizer)
    maps = zip(specs, examined.codes, strict=True)
    books = [_codebook(spec, part) for spec, codes in maps for part in _by_codebook(codes)]
    pairs = zip(_codebook_names(tokenizer), books, strict=True)
    codebooks = [replace(book, name=name) for name, book in pairs]
    figures += [_use(i, book) for i, book in enumerate(codebooks)]
    return Result(figures=figures, codebooks=codebooks, left_out=_left_out(tokenizer, levels))


def _measurable(tokenizer: Tokenizer, condition: Condition) -> list[bool]:
    """Whether the rate of each level takes trained priors alone.

    Without the label it takes those of the coarser levels too, which say how likely each class is.
    """
    stages = {stage.name for stage in tokenizer.stages()}
    trained = [
        not tokenizer.untrained or (name in stages and name not in tokenizer.untrained)
        for name in tokenizer.level_names
    ]
    alone = condition.labeled or not tokenizer.sample_classes
    return [trained[i] and (alone or all(trained[:i])) for i in range(len(trained))]


def _left_out(tokenizer: Tokenizer, levels: Mapping[Condition, list[bool]]) -> list[str]:
    if all(map(all, levels.values())):
        return []
    missing = tokenizer.untrained
    verb = "is" if len(missing) == 1 else "are"
    return [f"left out: what takes a prior, or samples, since {' and '.join(missing)} {verb} not trained"]


def _rates(tokenizer: Tokenizer, condition: Condition, batch: Batch, *codes: Tensor) -> Tensor:
    """Nats of each level's codes, ``(N, levels)``."""
    given = condition(batch)
    return torch.stack(tokenizer.rates(tuple(map(Tensor.long, codes)), given.labels, given.lengths), 1)


def _distortion(tokenizer: Tokenizer, condition: Condition, batch: Batch, *codes: Tensor) -> Tensor:
    """Nats of the examples given their codes, and where a decoder is told the class, that too."""
    return tokenizer.distortion(condition(batch), tuple(map(Tensor.long, codes)))


def _numbers(codes: Each) -> Tensor:
    """How many codes each example has on a level, ``(N,)``."""
    return torch.tensor([example.numel() for example in codes])


def _by_codebook(codes: Each) -> tuple[Tensor, ...]:
    """All codes of a level, those of each of its codebooks together."""
    if isinstance(codes, Tensor):
        return codes.unbind(1)
    return torch.cat(codes, 1).unbind(0)


def _streams(examined: Examined, tokenizer: Tokenizer) -> list[Figure]:
    """Of sounds, how many codes a second each level has, and bits a second if all were equally likely."""
    rate = tokenizer.spec.rate
    if examined.counts is None or rate is None:
        return []
    seconds = float(examined.counts.sum()) / rate
    figures = []
    for i, (spec, name) in enumerate(zip(tokenizer.code_specs(), tokenizer.level_names, strict=True)):
        hertz = float(_numbers(examined.codes[i]).sum()) / seconds
        level = f"{name} " if len(tokenizer.level_names) > 1 else ""
        bits = math.log2(spec.discrete_levels)
        figures.append(
            Figure(
                id=f"code_rate_{i}",
                name=f"{level}codes a second",
                value=hertz,
                quantity="code rate",
                unit="Hz",
                note=f"uniform: {hertz * bits:,.0f} bits/s",
            )
        )
    return figures


def _costs(
    examined: Examined,
    tokenizer: Tokenizer,
    rates: dict[Condition, Tensor],
    distortions: dict[Condition, Tensor],
) -> list[Figure]:
    """What codes and decoder cost, together and each; one distortion is that of all conditions."""
    figures: list[Figure] = []

    def add(id: str, name: str, nats: Tensor, quantity: str, *, bound: bool = False, note: str = "") -> None:
        kind: Kind = "bound" if bound else "measure"
        about: dict[str, Any] = {"quantity": quantity, "kind": kind, "note": note, "counts": examined.counts}
        figures.append(Figure.of_nats(id, name, nats, tokenizer.spec, **about))

    total = "negative log-likelihood"
    if distortions:
        first = next(iter(distortions.values()))
        for c, rate in rates.items():
            distortion = distortions.get(c, first)
            name = f"negative ELBO{c.words or ' (codes + decoder)'}"
            cost = distortion + rate.sum(1)
            add(f"nelbo_codes_decoder{c.suffix}", name, cost, total + c.words, bound=True, note=c.note)
        pairs = zip(tokenizer.code_specs(), examined.codes, strict=True)
        each = [_numbers(codes) * math.log(spec.discrete_levels) for spec, codes in pairs]
        uniform = first + torch.stack(each).sum(0)
        add("nelbo_uniform_prior", "negative ELBO, uniform prior", uniform, total, bound=True)
        for c, distortion in distortions.items():
            name = "decoder, given codes and label" if c.labeled else "decoder, given the codes"
            labeled = c.labeled and len(distortions) > 1
            add(f"decoder{c.suffix if labeled else ''}", name, distortion, "distortion")
    for c, rate in rates.items():
        name = f"codes{c.words or ' under the prior'}"
        add(f"codes{c.suffix}", name, rate.sum(1), f"rate{c.words}")
        for i, level in enumerate(_names(tokenizer)):
            add(f"codes_level{i}{c.suffix}", f"{level} {name}", rate[:, i], f"rate{c.words}")
    return figures


def _names(tokenizer: Tokenizer) -> tuple[str, ...]:
    """The levels, if there are several."""
    names = tokenizer.level_names
    return names if len(names) > 1 else ()


def _per_code(tokenizer: Tokenizer, i: int, rate: Tensor, numbers: Tensor, condition: Condition) -> Figure:
    """The mean of nats ``(N,)`` of level ``i``, for each of its codes, of which examples have ``numbers``."""
    spec, names = tokenizer.code_specs()[i], _names(tokenizer)
    return Figure(
        id=f"prior_level{i}{condition.suffix}",
        name=f"{names[i]} prior{condition.words}, a code" if names else f"prior{condition.words}, a code",
        value=bits(float(rate.mean())) / float(numbers.double().mean()),
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


def _codebook_names(tokenizer: Tokenizer) -> list[str]:
    """Whose each codebook is: of several levels its level's, of several on a level a number."""
    found = []
    for level, spec in zip(_names(tokenizer) or ("",), tokenizer.code_specs(), strict=True):
        several = spec.shape[0] > 1
        found += [f"{level} {m + 1}".strip() if several else level for m in range(spec.shape[0])]
    return found


def _use(i: int, book: Codebook) -> Figure:
    return Figure(
        id=f"codebook_perplexity_{i}",
        name=f"codebook perplexity, {book.name}" if book.name else "codebook perplexity",
        value=book.perplexity,
        quantity="code use",
        unit="codes",
        better="higher",
        note=f"{book.used} of {book.size}",
    )
