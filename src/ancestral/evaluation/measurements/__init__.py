"""All that an evaluation measures, in the order of its figures."""

from ancestral.evaluation.measurement import Measurement
from ancestral.evaluation.measurements import codes, latents, likelihood, reconstruction

MEASUREMENTS: tuple[Measurement, ...] = (likelihood, codes, reconstruction, latents)
