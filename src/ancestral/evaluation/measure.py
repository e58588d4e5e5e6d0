"""Evaluate a model on data: likelihood on the one yardstick, reconstruction, codes."""

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ancestral.data import Dataset, ImageOptions, Split
from ancestral.data.sheets import write_png
from ancestral.errors import UserError
from ancestral.evaluation.batches import batches
from ancestral.evaluation.figures import Codebook, Evaluation, Figure
from ancestral.evaluation.latent import pictures
from ancestral.evaluation.sampling import check_seed
from ancestral.evaluation.subject import Subject, Trained, take_split
from ancestral.evaluation.tokens import tokenize
from ancestral.files import write_json
from ancestral.model import Batch, ExactLikelihood, LowerBound, Model, Reconstructs, Tokenizer
from ancestral.nn.quantize import perplexity
from ancestral.runs import command
from ancestral.taxonomy import title

_SHOWN = 2000
"""Examples that pictures are made from."""


@torch.no_grad()
def evaluate(
    model: Trained,
    data: Dataset | str | None = None,
    *,
    split: str = "test",
    importance_samples: int = 0,
    images: ImageOptions | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = False,
    write: bool = True,
) -> Evaluation:
    """The figures of ``model`` on a split of ``data``. Means are over examples, the last smaller batch weighed by its size.

    Args:
        model: a model, a run or its directory, or a Hub name.
        data: a data set or its source; a run's own data if None.
        split: ``train``, ``validation``, ``test`` or ``all``.
        importance_samples: k of the importance-weighted bound; 0 leaves it out.
        images: how the images of a source are prepared; as in the run, and to the model's spec, if None.
        limit: evaluate the first so many examples only.
        seed: of the noise in bounds.
        device: where to compute; where a model is, else on the CPU, if None.
        progress: show a progress bar.
        write: write ``evaluation.json`` and pictures into the run, if it is a run that is evaluated on the whole of its own test split.

    Raises:
        UserError: the data do not fit the model, there is no such split, or the model has no importance-weighted bound.
    """
    subject = Subject.find(model, device)
    network = subject.model
    network.check_trained()
    _check_importance_samples(network, importance_samples)
    dataset = subject.dataset(data, images)
    examples = take_split(dataset, split, limit)
    started = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(check_seed(seed))
        run = _Runner(examples, network.device, progress)
        if isinstance(network, Tokenizer):
            figures, codebooks = _tokenizer(network, network, run)
        else:
            figures, codebooks = _likelihood(network, run, importance_samples), []
        figures += _reconstruction(network, run)
    result = Evaluation(
        model=title(type(network)), data=dataset.source, split=split, examples=len(examples.x), figures=figures, codebooks=codebooks,
        seconds=time.perf_counter() - started, command=command(),
    )  # fmt: skip
    if write and subject.run and writes(data, split, limit):
        write_json(subject.run.path / "evaluation.json", result.to_json())
        shown = take_split(dataset, split, _SHOWN).x.to(network.device)
        for name, picture in pictures(network, shown).items():
            write_png(subject.run.path / "samples" / f"{name}.png", picture)
    return result


def writes(data: Dataset | str | None, split: str, limit: int | None) -> bool:
    """Whether an evaluation of a run goes into its directory: one of a part, or of other data, must not take the place of the run's own."""
    return data is None and split == "test" and limit is None


def _check_importance_samples(model: Model, k: int) -> None:
    """Raise UserError for k samples of a posterior that has no k different ones."""
    if k < 0:
        raise UserError(f"expected 0 or more importance samples, got {k}", "try 64; 0 leaves the bound out")
    if isinstance(model, ExactLikelihood):
        reason = "whose likelihood is exact"
    elif isinstance(model, Tokenizer):
        reason = "which has one code map for each example, so that all samples are the same"
    elif not isinstance(model, LowerBound) or not model.has_likelihood:
        reason = "which has no likelihood"
    else:
        return
    if k:
        raise UserError(
            f"expected a model to draw importance samples from, got {type(model).__name__}, {reason}",
            "leave --importance-samples out",
        )


class _Runner:
    """Applies functions to the examples, batch after batch."""

    def __init__(self, examples: Split, device: torch.device, progress: bool) -> None:
        self.x, self.device, self.progress = examples.x, device, progress

    def __call__(self, what: str, function: Callable[..., Tensor], *more: Tensor) -> Tensor:
        """``function`` of each batch ``(n, *shape)`` and of the same part of ``more``, the results joined."""
        return torch.cat(
            [
                function(*batch).cpu()
                for batch in batches(self.x, *more, what=what, device=self.device, show=self.progress)
            ]
        )


def _likelihood(model: Model, run: _Runner, k: int) -> list[Figure]:
    dims = model.spec.dims
    if isinstance(model, ExactLikelihood):
        nats = run("likelihood", lambda x: -model.log_prob(Batch(x)))
        return [Figure.bits_per_dim("negative log-likelihood", nats, dims, kind="exact")]
    if not isinstance(model, LowerBound) or not model.has_likelihood:
        return []
    nats = run("bound", lambda x: -model.elbo(Batch(x)))
    figures = [Figure.bits_per_dim("negative ELBO", nats, dims, kind="bound", note="one z each")]
    if k:
        nats = run(f"importance-weighted bound, k={k}", lambda x: -model.importance_bound(Batch(x), k))
        figures.append(Figure.bits_per_dim(f"importance-weighted, k={k}", nats, dims, kind="bound"))
    return figures


def _tokenizer(model: Model, tokenizer: Tokenizer, run: _Runner) -> tuple[list[Figure], list[Codebook]]:
    """Codes, and what sending an example in two parts would cost: -log p(codes) - log p(x|codes)."""
    dims, specs = model.spec.dims, tokenizer.code_specs()
    levels = [codes.long() for codes in tokenize(model, run.x, progress=run.progress)[0]]
    rates = run("prior", lambda x, *codes: torch.stack(tokenizer.rates(codes), 1), *levels).double()
    total_rate = rates.sum(1)
    figures = []
    if isinstance(model, LowerBound) and model.has_likelihood:
        distortion = run("decoder", lambda x, *codes: tokenizer.distortion(x, codes), *levels).double()
        uniform = sum(spec.dims * math.log(spec.discrete_levels) for spec in specs)
        figures = [
            Figure.bits_per_dim(
                "honest total", distortion + total_rate, dims, kind="bound", note="prior + decoder"
            ),
            Figure.bits_per_dim(
                "total with a uniform prior", distortion + uniform, dims, kind="bound", note="log2 K a code"
            ),
            Figure.bits_per_dim("decoder", distortion, dims, kind="measure", note="given the codes"),
        ]
    figures.append(Figure.bits_per_dim("codes", total_rate, dims, kind="measure", note="learned prior"))
    for i, (spec, rate) in enumerate(zip(specs, rates.unbind(1), strict=True)):
        name = "prior" if len(specs) == 1 else f"prior, level {i}"
        note = f"uniform: {math.log(spec.discrete_levels):.2f}"
        figures.append(
            Figure(name=name, value=float(rate.mean()) / spec.dims, unit="nats/code", kind="exact", note=note)
        )
    codebooks = []
    for spec, codes in zip(specs, levels, strict=True):
        for part in codes.unbind(1):
            usage = torch.bincount(part.flatten(), minlength=spec.discrete_levels)
            used = int((usage > 0).sum())
            codebooks.append(
                Codebook(
                    size=len(usage), used=used, perplexity=float(perplexity(usage)), usage=usage.tolist()
                )
            )
            name = (
                "codebook perplexity"
                if len(specs) == 1 and codes.shape[1] == 1
                else f"codebook perplexity {len(codebooks)}"
            )
            note = f"{used} of {len(usage)} used"
            figures.append(
                Figure(name=name, value=codebooks[-1].perplexity, unit="codes", kind="measure", note=note)
            )
    return figures, codebooks


def _reconstruction(model: Model, run: _Runner) -> list[Figure]:
    if not isinstance(model, Reconstructs):
        return []
    peak = model.spec.discrete_levels - 1
    mse = run(
        "reconstruction", lambda x: (model.reconstruct(x).double() - x.double()).square().flatten(1).mean(1)
    )
    psnr = 10 * torch.log10(peak**2 / mse.clamp(min=1e-10))
    scaled = float(mse.mean()) / peak**2
    return [
        Figure(name="reconstruction MSE", value=scaled, unit="", kind="measure", note="values in 0..1"),
        Figure(
            name="reconstruction PSNR",
            value=float(psnr.mean()),
            unit="dB",
            kind="measure",
            note="mean of images",
        ),
    ]
