"""All that an evaluation measures, in the order of its figures."""

from ancestral.evaluation.measurement import Measurement
from ancestral.evaluation.measurements import (
    accuracy,
    codes,
    columns,
    latents,
    levels,
    likelihood,
    reconstruction,
    spectra,
)

MEASUREMENTS: dict[str, Measurement] = {
    "likelihood": likelihood,
    "columns": columns,
    "codes": codes,
    "reconstruction": reconstruction,
    "spectra": spectra,
    "levels": levels,
    "latents": latents,
    "accuracy": accuracy,
}
