"""How near a model's reconstructions come to the examples."""

import torch
from torch import Tensor

from ancestral.batch import Batch
from ancestral.capabilities import Reconstructs
from ancestral.evaluation.figures import Figure
from ancestral.evaluation.measurement import Examined, Result
from ancestral.media import Pixels, comparison
from ancestral.model import Model

_SHOWN = 32


def applies(model: Model) -> bool:
    """Of models that reconstruct."""
    return isinstance(model, Reconstructs)


def measure(examined: Examined) -> Result:
    """The mean squared error of values scaled to 0..1, and the PSNR; of continuous data the error alone."""
    model = examined.model
    assert isinstance(model, Reconstructs)

    def error(batch: Batch) -> Tensor:
        return (model.reconstruct(batch.x).double() - batch.x.double()).square().flatten(1).mean(1)

    def picture() -> Pixels:
        x = examined.first(_SHOWN).x
        return comparison(model.spec, x, model.reconstruct(x))

    errors, levels = examined.each("reconstruction", error), model.spec.levels
    peak = 1 if levels is None else levels - 1
    figures = [
        Figure(
            id="reconstruction_mse",
            name="reconstruction MSE",
            value=float(errors.mean()) / peak**2,
            quantity="squared error",
            better="lower",
            note="" if levels is None else "on 0..1",
        )
    ]
    if levels is not None:
        psnr = 10 * torch.log10(peak**2 / errors.clamp(min=1e-10))
        figures.append(
            Figure(
                id="reconstruction_psnr",
                name="reconstruction PSNR",
                value=float(psnr.mean()),
                quantity="peak signal-to-noise ratio",
                unit="dB",
                better="higher",
                note="by image",
            )
        )
    return Result(figures=figures, pictures={"reconstructions": picture})
