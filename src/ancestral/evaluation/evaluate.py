"""Evaluate a model on data: likelihood on the one yardstick, reconstruction, codes."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor

from ancestral.data import Dataset, ImageOptions, Split
from ancestral.errors import UserError
from ancestral.evaluation.data import resolve, take_split
from ancestral.evaluation.figures import Codebook, Evaluation, Figure
from ancestral.model import Batch, ExactLikelihood, LowerBound, Model, Reconstructs, Tokenizer
from ancestral.nn.quantize import perplexity
from ancestral.runs import command, load

_BATCH = 250


@torch.no_grad()
def evaluate(
    model: Model | str | Path,
    data: Dataset | str | None = None,
    *,
    split: str = "test",
    importance_samples: int = 0,
    images: ImageOptions | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Evaluation:
    """The figures of ``model`` on a split of ``data``. Means are over examples, the last smaller batch weighed by its size.

    Args:
        model: a model, a run directory or a Hub name.
        data: a data set or its source; a run's own data if None.
        split: ``train``, ``validation`` or ``test``.
        importance_samples: k of the importance-weighted bound; 0 leaves it out.
        images: how the images of ``data`` are prepared; as in the run if None.
        limit: evaluate the first so many examples only.
        seed: of the noise in bounds.
        device: where to compute.
        progress: show a progress bar.

    Raises:
        UserError: the data do not fit the model, or there is no such split.
    """
    name = str(model) if not isinstance(model, Model) else type(model).__name__
    network = model.to(device).eval() if isinstance(model, Model) else load(model, device)
    if isinstance(model, Model) and data is None:
        raise UserError("expected data to evaluate a model on, got none", "name them: evaluate(model, data=...)")
    dataset = data if isinstance(data, Dataset) else resolve(name, data, images)
    examples = take_split(dataset, split, limit)
    network.spec.check(examples.x[:_BATCH])
    started = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        runner = _Runner(network, examples, device, progress)
        figures = [*_likelihood(network, runner, importance_samples), *_reconstruction(network, runner)]
        codebooks = _codebooks(network, runner)
    return Evaluation(
        model=name, data=dataset.source, split=split, examples=len(examples.x), figures=figures, codebooks=codebooks,
        seconds=time.perf_counter() - started, command=command(),
    )  # fmt: skip


class _Runner:
    """Applies functions to the examples, batch after batch."""

    def __init__(self, model: Model, examples: Split, device: str | torch.device, progress: bool) -> None:
        self.model, self.examples, self.device, self.progress = model, examples, device, progress

    def __call__(self, what: str, function: Callable[[Tensor], Tensor]) -> Tensor:
        """``function`` of each batch ``(n, *shape)``, the results joined."""
        parts = self.examples.x.split(_BATCH)
        shown = track(parts, what, transient=True) if self.progress else parts
        return torch.cat([function(x.to(self.device)).cpu() for x in shown])


def _likelihood(model: Model, run: _Runner, k: int) -> list[Figure]:
    dims = model.spec.dims
    if isinstance(model, ExactLikelihood):
        nats = run("likelihood", lambda x: -model.log_prob(Batch(x)))
        return [Figure.bits_per_dim("negative log-likelihood", nats, dims, kind="exact")]
    if not isinstance(model, LowerBound) or not model.has_likelihood:
        return []
    if isinstance(model, Tokenizer):
        return _two_part_likelihood(model, model, run)
    nats = run("bound", lambda x: -model.elbo(Batch(x)))
    figures = [Figure.bits_per_dim("negative ELBO", nats, dims, kind="bound", note="one sample of z for each example")]
    if k:
        nats = run(f"importance-weighted bound, k={k}", lambda x: -model.importance_bound(Batch(x), k))
        figures.append(Figure.bits_per_dim(f"importance-weighted bound, k={k}", nats, dims, kind="bound"))
    return figures


def _two_part_likelihood(model: Model, tokenizer: Tokenizer, run: _Runner) -> list[Figure]:
    """-log p(codes) + -log p(x|codes): what sending an example in two parts would cost."""
    dims = model.spec.dims
    distortion = run("decoder", lambda x: tokenizer.distortion(x, tokenizer.tokenize(x)))
    rates = run("prior", lambda x: torch.stack(tokenizer.rates(tokenizer.tokenize(x)), 1))
    specs = tokenizer.code_specs()
    uniform = sum(spec.dims * torch.log(torch.tensor(float(spec.discrete_levels))).item() for spec in specs)
    figures = [
        Figure.bits_per_dim("honest total", distortion + rates.sum(1), dims, kind="bound", note="codes under the learned prior + decoder"),
        Figure.bits_per_dim("decoder", distortion, dims, kind="measure", note="given the codes"),
        Figure.bits_per_dim("codes", rates.sum(1), dims, kind="measure", note="under the learned prior"),
        Figure.bits_per_dim("total with a uniform prior", distortion + uniform, dims, kind="bound", note="log2 K for each code + decoder"),
    ]
    for level, (spec, rate) in enumerate(zip(specs, rates.unbind(1), strict=True)):
        name = "prior" if len(specs) == 1 else f"prior, level {level}"
        note = f"uniform: {torch.log(torch.tensor(float(spec.discrete_levels))).item():.2f}"
        figures.append(Figure(name=name, value=float(rate.mean()) / spec.dims, unit="nats/code", kind="exact", note=note))
    return figures


def _reconstruction(model: Model, run: _Runner) -> list[Figure]:
    if not isinstance(model, Reconstructs):
        return []
    peak = model.spec.discrete_levels - 1
    mse = run("reconstruction", lambda x: (model.reconstruct(x).double() - x.double()).square().flatten(1).mean(1))
    psnr = 10 * torch.log10(peak**2 / mse.clamp(min=1e-10))
    scaled = float(mse.mean()) / peak**2
    return [
        Figure(name="reconstruction MSE", value=scaled, unit="of values in [0, 1]", kind="measure"),
        Figure(name="reconstruction PSNR", value=float(psnr.mean()), unit="dB", kind="measure", note="mean over examples"),
    ]


def _codebooks(model: Model, run: _Runner) -> list[Codebook]:
    if not isinstance(model, Tokenizer):
        return []
    codebooks = []
    for level, spec in enumerate(model.code_specs()):
        codes = run("codes", lambda x, level=level: model.tokenize(x)[level])  # type: ignore[misc]
        size = spec.discrete_levels
        for part in codes.unbind(1):
            usage = torch.bincount(part.flatten(), minlength=size)
            codebooks.append(Codebook(size=size, used=int((usage > 0).sum()), perplexity=float(perplexity(usage)), usage=usage.tolist()))
    return codebooks
