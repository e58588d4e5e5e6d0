"""How near a model's reconstructions come to the examples."""

import math

from torch import Tensor

from ancestral.batch import Batch
from ancestral.capabilities import Reconstructs
from ancestral.evaluation.measurement import Examined, Result
from ancestral.figures import Figure
from ancestral.media import Pixels, comparison
from ancestral.model import Model

_SHOWN = 32


def applies(model: Model) -> bool:
    """Of models that reconstruct; sounds are measured in their ``spectra``."""
    return isinstance(model, Reconstructs) and model.spec.domain != "sound"


def measure(examined: Examined) -> Result:
    """The mean squared error of values scaled to 0..1, and its PSNR; of continuous data the error alone.

    A mean over images of their own PSNR would be infinite as soon as one is perfect. Where all are, there is
    no PSNR.
    """
    model = examined.model
    assert isinstance(model, Reconstructs)

    def error(batch: Batch) -> Tensor:
        return (model.reconstruct(batch.x).double() - batch.x.double()).square().flatten(1).mean(1)

    def picture() -> Pixels:
        x = examined.some(_SHOWN).x
        return comparison(model.spec, x, model.reconstruct(x))

    errors, levels = examined.each("reconstruction", error), model.spec.levels
    peak = 1 if levels is None else levels - 1
    mean = float(errors.mean()) / peak**2
    figures = [
        Figure(
            id="reconstruction_mse",
            name="reconstruction MSE",
            value=mean,
            quantity="squared error",
            better="lower",
            note="" if levels is None else "on 0..1",
        )
    ]
    if levels is not None and mean > 0:
        perfect = int((errors == 0).sum())
        figures.append(
            Figure(
                id="reconstruction_psnr",
                name="reconstruction PSNR",
                value=-10 * math.log10(mean),
                quantity="peak signal-to-noise ratio",
                unit="dB",
                better="higher",
                note="of the MSE" + (f"; {perfect:,} of {len(errors):,} perfect" if perfect else ""),
            )
        )
    return Result(figures=figures, pictures={"reconstructions": picture})
