"""What is measured of samples against real examples, by name."""

from ancestral.evaluation.quality import rejection, samples, score
from ancestral.evaluation.quality.compared import QualityMeasurement

QUALITY: dict[str, QualityMeasurement] = {"samples": samples, "score": score, "rejection": rejection}
"""Each draws samples, or is given them; on demand alone, since they take minutes."""
