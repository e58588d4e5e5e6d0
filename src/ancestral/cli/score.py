"""``ancestral score RUN --out scores.csv``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from ancestral.cli.options import DataName, Device, RunName, device
from ancestral.cli.parse import parse, shown_as


@dataclass(frozen=True)
class Options:
    """How likely each example is: log p(x) in nats, the lower the stranger."""

    run: RunName
    out: Annotated[Path, shown_as("FILE")]
    """A new file, .csv or .parquet, with columns name, log_likelihood (nats; of a table the density of the
    row as it stands in the file) and, of integers, bits_per_dim."""
    data: DataName = None
    split: Annotated[Literal["train", "validation", "test", "all"] | None, shown_as("SPLIT")] = None
    """train, validation, test or all; test of the run's own data, and all of other data, if left out."""
    importance_samples: int = 1
    """k of the importance-weighted bound, for models that have one: more is tighter, and slower."""
    limit: int | None = None
    """The first so many examples only."""
    seed: int = 0
    """Of the noise in bounds."""
    device: Device = "auto"


def main(arguments: list[str]) -> None:
    """Score and write."""
    options = parse(Options, arguments, "score")
    from ancestral.evaluation.scores import check_scores_file, score, write_scores

    check_scores_file(options.out)
    scores = score(
        options.run,
        options.data,
        split=options.split,
        importance_samples=options.importance_samples,
        limit=options.limit,
        seed=options.seed,
        device=device(options.device),
        progress=True,
    )
    write_scores(options.out, scores)
    nats, least = scores.log_likelihood, scores.log_likelihood.argsort()[:3].tolist()
    finite = nats[nats.isfinite()]
    mean = f"{finite.mean():.4f} nats on average ({scores.kind})"
    beyond = f", {len(nats) - len(finite):,} too far out for any number" if len(finite) < len(nats) else ""
    print(f"{options.out}: {len(scores):,} examples, {mean}{beyond}")
    print(f"least likely: {', '.join(f'{scores.names[i]} ({nats[i]:.4f})' for i in least)}")
