"""How near a model's versions of sounds come to these, as ears would have it: in their spectra over time."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ancestral.capabilities import Reconstructs
from ancestral.companding import expanded
from ancestral.evaluation.batches import together
from ancestral.evaluation.measurement import Examined, Result
from ancestral.figures import Figure
from ancestral.media import Sheet, comparison
from ancestral.model import Model
from ancestral.progress import watched
from ancestral.spectra import log_mel_distance, multi_resolution_stft_distance

_CLIPS, _SECONDS = 32, 4
"""Sounds that are measured, and how much of each: a decoder that draws takes its time."""
_SHOWN = 4


def applies(model: Model) -> bool:
    """Of models that reconstruct sounds."""
    return isinstance(model, Reconstructs) and model.spec.domain == "sound"


def measure(examined: Examined) -> Result:
    """Distances of log-mel spectra and of short-time spectra of several resolutions, means over some clips.

    Each clip is the beginning of a sound; a decoder that is told the class is told the clip's own.
    """
    model, spec = examined.model, examined.model.spec
    assert isinstance(model, Reconstructs)
    if spec.rate is None:
        return Result(left_out=["left out: distances of spectra, since the sounds have no rate"])
    pairs = list(watched_pairs(examined, model))
    distances: dict[str, list[float]] = {"log_mel": [], "stft": []}
    for x, y in pairs:
        a, b = (expanded(clip, spec)[:, 0] for clip in (y, x))
        distances["log_mel"].append(float(log_mel_distance(a, b, spec.rate)))
        distances["stft"].append(float(multi_resolution_stft_distance(a, b, spec.rate)))
    note = f"{len(pairs):,} clips of up to {_SECONDS} s"
    names = {
        "log_mel": ("log-mel distance", "dB", "distance of log-mel spectra"),
        "stft": ("STFT distance", "", "distance of spectra of several resolutions"),
    }
    figures = []
    for id, (name, unit, quantity) in names.items():
        values = torch.tensor(distances[id], dtype=torch.float64)
        figures.append(
            Figure(
                id=f"reconstruction_{id}",
                name=f"reconstruction {name}",
                value=float(values.mean()),
                standard_error=float(values.std() / len(values) ** 0.5) if len(values) > 1 else None,
                quantity=quantity,
                unit=unit,
                better="lower",
                note=note,
            )
        )

    def sheet() -> Sheet:
        return compared(model, pairs[:_SHOWN])

    return Result(figures=figures, pictures={"reconstructions": sheet})


def watched_pairs(examined: Examined, model: Reconstructs) -> Iterator[tuple[Tensor, Tensor]]:
    """Some clips ``(1, 1, T)`` and the model's versions of them, on the CPU."""
    examples, most = examined.examples, _SECONDS * (model.spec.rate or 1)
    n = min(_CLIPS, len(examples))
    rows = [i * len(examples) // n for i in range(n)]
    for i in watched(rows, "reconstructing", show=examined.progress):
        clip = examples[i : i + 1].to(model.device)
        x = clip.x[..., :most]
        yield x.cpu(), model.version(x, clip.labels).cpu()


def compared(model: Model, pairs: list[tuple[Tensor, Tensor]]) -> Sheet:
    """A picture of clips above their versions, and both to be heard."""
    lengths = torch.tensor([x.shape[2] for x, _ in pairs])
    silence = model.spec.silence
    columns = [together([clip[0] for clip in clips], silence) for clips in zip(*pairs, strict=True)]
    series = ("original", "reconstruction")
    picture = comparison(model.spec, *columns, series=series, lengths=lengths)
    return Sheet(picture, model.spec, dict(zip(series, columns, strict=True)), lengths)
