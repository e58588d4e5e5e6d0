"""``ancestral score RUN --out scores.csv``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from ancestral.cli.options import DataName, Device, RunName, device
from ancestral.cli.parse import parse, shown_as


@dataclass(frozen=True)
class Options:
    """How likely each example is: log p(x) in nats, the lower the stranger.

    Sounds are scored whole.
    """

    run: RunName
    out: Annotated[Path, shown_as("FILE")]
    """A new file, .csv or .parquet, with columns name, log_likelihood (nats; of a table the density of the
    row as it stands in the file) and, of integers, bits_per_dim; of sounds bits_per_sample and samples."""
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
    from ancestral.units import bits

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
    nats = scores.log_likelihood
    finite = nats[nats.isfinite()]
    mean = f"{finite.mean():.4f} nats on average ({scores.kind})"
    beyond = f", {len(nats) - len(finite):,} too far out for any number" if len(finite) < len(nats) else ""
    if scores.samples is None or scores.bits_per_sample is None:
        shown, least = nats, nats.argsort()
        print(f"{options.out}: {len(scores):,} examples, {mean}{beyond}")
    else:  # of long sounds all are unlikely
        shown, least = scores.bits_per_sample, scores.bits_per_sample.argsort(descending=True)
        rate = bits(-nats.sum()) / scores.samples.sum()
        print(f"{options.out}: {len(scores):,} sounds, {rate:.4f} bits/sample ({scores.kind})")
    print(f"least likely: {', '.join(f'{scores.names[i]} ({shown[i]:.4f})' for i in least[:3].tolist())}")
