"""Pictures that a training draws of what its model can do."""

from typing import Any

import torch

from ancestral import media
from ancestral.capabilities import Reconstructs
from ancestral.data import Dataset, Sounds
from ancestral.media import Sheet
from ancestral.model import Model
from ancestral.training.randomness import derive

_SAMPLES, _ROWS, _RECONSTRUCTIONS = 64, 2000, 32
"""Examples on a sheet; of tables, points of a panel."""
_SOUNDS = 4
"""Sounds on a sheet: they are drawn value by value, and seen and heard one by one."""
_MOST_COLUMNS = 16


@torch.no_grad()
def samples(model: Model, data: Dataset[Any], seed: int) -> Sheet:
    """Samples, those of a class in a column of its own; of a table, validation rows and as many drawn ones.

    Raises UserError if none can be drawn.
    """
    device, spec = model.device, model.spec
    generator = torch.Generator(device).manual_seed(derive(seed, "pictures"))
    if data.columns is not None:
        rows = data.validation.some(_ROWS).x
        drawn = model.sample(len(rows), generator=generator)
        real, drawn = (data.columns.restored(x) for x in (rows, drawn))
        series = ("validation rows", "samples")
        pixels = media.comparison(spec, real, drawn, names=data.columns.names, series=series)
        return Sheet(pixels, spec, {"": drawn})
    classes = model.sample_classes
    columns = classes * max(1, round(8 / classes)) if 1 < classes <= _MOST_COLUMNS else 8
    n = _SAMPLES // columns * columns
    if spec.domain == "sound":
        columns = 1 if classes < 2 else _SOUNDS // classes * classes or _SOUNDS
        n = _SOUNDS // columns * columns
    n = min(n, len(data.validation)) if spec.contexts else n
    labels = torch.arange(n, device=device) % min(classes, columns) if classes > 1 else None
    contexts = data.validation[:n].contexts if spec.contexts else ()
    drawn = model.sample(n, labels, contexts=contexts, generator=generator)
    heads = [*data.classes][:columns] * max(1, columns // max(classes, 1)) if labels is not None else []
    return Sheet(media.picture(spec, drawn, columns=columns, heads=heads), spec, {"": drawn})


@torch.no_grad()
def reconstructions(model: Reconstructs, data: Dataset[Any]) -> Sheet:
    """Validation examples above their reconstructions; of a table, both in the file's units.

    Of sounds windows are shown, as long as an example of the training.
    """
    spec, sound, whole = model.spec, model.spec.domain == "sound", data.validation
    examples = whole.crops(spec.shape[-1]) if isinstance(whole, Sounds) else whole
    batch = examples.some(_SOUNDS if sound else _RECONSTRUCTIONS).to(model.device)
    originals, lengths = batch.x, batch.lengths
    if sound:  # of whole sounds in memory the beginnings
        originals = originals[..., : spec.shape[-1]]
        lengths = None if lengths is None else lengths.clamp(max=spec.shape[-1])
    shown, names = [originals, model.version(originals, batch.labels)], []
    if data.columns is not None:
        shown, names = [data.columns.restored(x) for x in shown], [*data.columns.names]
    series = ("original", "reconstruction")
    pixels = media.comparison(spec, *shown, names=names, series=series if sound else (), lengths=lengths)
    return Sheet(pixels, spec, dict(zip(series, shown, strict=True)), lengths)
