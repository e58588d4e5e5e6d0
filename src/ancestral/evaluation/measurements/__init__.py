"""All that an evaluation measures, in the order of its figures."""

from ancestral.evaluation.measurement import Measurement
from ancestral.evaluation.measurements import (
    accuracy,
    codes,
    columns,
    conversion,
    latents,
    levels,
    likelihood,
    probes,
    reconstruction,
    spectra,
)

MEASUREMENTS: dict[str, Measurement] = {
    "likelihood": likelihood,
    "columns": columns,
    "codes": codes,
    "reconstruction": reconstruction,
    "spectra": spectra,
    "probes": probes,
    "conversion": conversion,
    "levels": levels,
    "latents": latents,
    "accuracy": accuracy,
}
