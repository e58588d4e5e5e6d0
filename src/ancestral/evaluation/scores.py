"""How likely each example is: anomaly scores, one row for each."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ancestral.batch import Batch
from ancestral.capabilities import Lengthens
from ancestral.data import Dataset, Preparation, Sounds
from ancestral.errors import UserError
from ancestral.evaluation.batches import WHOLE, batches
from ancestral.evaluation.code_parquet import parquet
from ancestral.evaluation.sampling import check_seed
from ancestral.evaluation.subject import Subject, Trained, undisturbed
from ancestral.files import replacing
from ancestral.units import bits, bits_per_dim

ENDINGS = (".csv", ".parquet")


@dataclass(frozen=True)
class Scores:
    """Log-likelihoods of examples, in the order of the source's split."""

    names: tuple[str, ...]
    """What the source calls each example: a file, or a row's number."""
    log_likelihood: Tensor
    """Log p(x) of each, ``(N,)`` float64 nats on the CPU: exact or a lower bound, as ``kind`` says. Of a
    table it is the density of the row as the file has it."""
    bits_per_dim: Tensor | None
    """The same as bits for each value, of integers that are no sounds."""
    kind: str
    samples: Tensor | None = None
    """Of sounds, how many samples each has, ``(N,)``."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def bits_per_sample(self) -> Tensor | None:
        """The same as bits for each sample of a sound; None of other data."""
        return None if self.samples is None else bits(-self.log_likelihood) / self.samples

    def columns(self) -> dict[str, list[str] | list[float]]:
        """As columns of a file."""
        columns: dict[str, list[str] | list[float]] = {"name": list(self.names)}
        columns["log_likelihood"] = self.log_likelihood.tolist()
        if self.bits_per_dim is not None:
            columns["bits_per_dim"] = self.bits_per_dim.tolist()
        if self.samples is not None and self.bits_per_sample is not None:
            columns["bits_per_sample"] = self.bits_per_sample.tolist()
            columns["samples"] = self.samples.tolist()
        return columns


@undisturbed
def score(
    model: Trained,
    data: Dataset | str | None = None,
    *,
    split: str | None = None,
    importance_samples: int = 1,
    preparation: Preparation | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> Scores:
    """Log p(x) of each example, without labels: of sounds of each whole recording.

    Args:
        model: a model, a run or its directory, or a Hub name.
        data: a data set or its source; a run's own data if None.
        split: ``train``, ``validation``, ``test`` or ``all``. If None, all of a source that is named, a
            table's rows in their order, and test of other data.
        importance_samples: k of the importance-weighted bound, of models that have one.
        preparation: how a source's data are prepared; as in the run, and to the model's spec, if None.
        limit: the first so many examples only.
        seed: of the noise in bounds.
        device: where to compute; where a model is, else on the CPU, if None.
        progress: show a progress bar.

    Raises:
        UserError: the model has no likelihood or is not trained, or the data do not fit it.
    """
    check_seed(seed)
    subject = Subject.find(model, device)
    network = subject.model
    if network.likelihood == "none":
        problem = f"expected a model with a likelihood, got {type(network).__name__}"
        raise UserError(problem, "ancestral models lists which have one")
    subject.check_trained()
    network.check_importance_samples(importance_samples)
    named = isinstance(data, str)
    whole = named and split is None and preparation is None
    dataset: Dataset[Any] = subject.whole(str(data)) if whole else subject.dataset(data, preparation)
    split = split or ("all" if named else "test")
    examples: Batch | Sounds = dataset.split(split, limit).without_labels()
    if isinstance(examples, Sounds) and not isinstance(network, Lengthens):
        problem = (
            f"expected a model of sounds of any length to score recordings, got {type(network).__name__}"
        )
        raise UserError(problem, "train one: ancestral train wavenet")
    dims = WHOLE if isinstance(examples, Sounds) else network.spec.dims

    def each() -> Iterator[Tensor]:
        for part in batches(len(examples), "scores", device=network.device, show=progress, dims=dims):
            batch: Batch = examples[part].to(network.device)
            yield network.log_likelihood(batch, importance_samples).double().cpu()

    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        nats = torch.cat(list(each())) + dataset.log_determinant
    sounds = network.spec.domain == "sound"
    discrete = network.spec.levels is not None
    return Scores(
        names=tuple(dataset.names_of(split)[: len(examples)]),
        log_likelihood=nats,
        bits_per_dim=bits_per_dim(-nats, network.spec.dims) if discrete and not sounds else None,
        kind=network.likelihood,
        samples=examples.counts.cpu() if sounds else None,
    )


def check_scores_file(path: Path) -> None:
    """Raise UserError unless scores can be written to ``path``: a new .csv or .parquet file."""
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"expected a file .csv or .parquet, got {path}", "name one: --out scores.csv")
    if path.exists():
        raise UserError(f"expected a new file, got {path} which is there already", "choose another --out")


def write_scores(path: str | Path, scores: Scores) -> None:
    """Write scores to a new .csv or .parquet file, a row for each example.

    Raises:
        UserError: the path has another ending, or there is such a file.
    """
    path = Path(path)
    check_scores_file(path)
    columns = scores.columns()
    with replacing(path) as temporary:
        if path.suffix.lower() == ".parquet":
            library = parquet("a Parquet file of scores", "name a .csv file")
            table = library.arrow.table(columns).replace_schema_metadata({"likelihood": scores.kind})
            library.files.write_table(table, temporary)
            return
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
