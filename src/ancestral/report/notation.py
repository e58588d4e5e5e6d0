"""How the page writes numbers and the names of terms."""

import math

from ancestral.units import RATES

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_UNITS = {
    **RATES,
    "steps_per_second": "steps/s",
    "examples_per_second": "examples/s",
    "nats": "nats",
    "bits": "bits",
    "seconds": "s",
    "db": "dB",
    "percent": "%",
}
"""Endings of terms that say the unit."""

_TERMS = {
    "loss": ("Loss", ""),
    "distortion": ("Distortion", "nats"),
    "rate": ("Rate", "nats"),
    "elbo": ("ELBO", "nats"),
    "kl": ("KL divergence", "nats"),
    "psnr": ("PSNR", "dB"),
    "perplexity": ("Codebook perplexity", "codes"),
    "learning_rate": ("Learning rate", ""),
    "steps_per_second": ("Speed", "steps/s"),
    "examples_per_second": ("Speed", "examples/s"),
    "bits_per_dim": ("Code length", "bits/dim"),
    "bits_per_code": ("Rate of a code", "bits/code"),
    "given_label_bits_per_dim": ("Code length given the label", "bits/dim"),
    "bits_per_sample": ("Code length", "bits/sample"),
    "given_label_bits_per_sample": ("Code length given the label", "bits/sample"),
    "given_label_bits_per_code": ("Rate of a code given the label", "bits/code"),
    "grad_norm": ("Gradient norm", ""),
    "frechet_distance": ("Fréchet distance of samples", ""),
    "precision": ("Precision of samples", ""),
    "recall": ("Recall of samples", ""),
    "diversity": ("Diversity of samples beside real examples", ""),
    "accuracy_percent": ("Accuracy", "%"),
}


def term(name: str) -> tuple[str, str]:
    """The title and the unit ("" if it has none) of a term.

    >>> term("decoder_bits_per_dim"), term("prior_bits_per_code")
    (('Decoder', 'bits/dim'), ('Prior', 'bits/code'))
    """
    if name in _TERMS:
        return _TERMS[name]
    for ending, unit in _UNITS.items():
        if name.endswith(f"_{ending}"):
            return _words(name.removesuffix(f"_{ending}")), unit
    return _words(name), ""


def _words(name: str) -> str:
    words = name.replace("_", " ").replace("/", ", ").strip() or name
    return words[:1].upper() + words[1:]


def number(value: float | None, digits: int = 4) -> str:
    """``digits`` significant digits, thousands set apart, powers of ten where plain figures are hard to read.

    >>> number(1234567.0), number(3e-5)
    ('1,234,567', '3 × 10⁻⁵')
    """
    if value is None or math.isnan(value):
        return "not a number"
    if value == 0 or math.isinf(value):
        return f"{value:.0f}".replace("inf", "∞").replace("-", "−")
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -4 or exponent >= 12:
        mantissa, power = f"{value:.{max(digits - 2, 0)}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{mantissa.replace('-', '−')} × 10{str(int(power)).translate(_SUPERSCRIPT)}"
    places = max(digits - 1 - exponent, 0)
    written = f"{value:,.{places}f}".replace("-", "−")
    return (
        written.rstrip("0").rstrip(".") if places and round(value, places) == value else written
    )  # no zeros that nobody measured


def with_error(value: float | None, standard_error: float | None) -> tuple[str, str]:
    """A value and its standard error to two digits, both to the same place; "" where there is no error."""
    if (
        value is None
        or not math.isfinite(value)
        or standard_error is None
        or not (math.isfinite(standard_error) and standard_error > 0)
    ):
        return number(value), ""
    places = max(1 - math.floor(math.log10(standard_error)), 0)
    return f"{value:,.{places}f}".replace("-", "−"), f"{standard_error:,.{places}f}"


def with_interval(value: float, interval: tuple[float, float] | None) -> tuple[str, tuple[str, str] | None]:
    """A value and the ends of its interval, all to the first place that half the interval reaches.

    >>> with_interval(8.7, (8.2, 9.2)), with_interval(8.7, None)
    (('8.7', ('8.2', '9.2')), ('8.7', None))
    """
    if interval is None:
        return plain(value), None
    half = (interval[1] - interval[0]) / 2
    if not (math.isfinite(value) and 1e-12 < half < math.inf):
        return plain(value), (plain(interval[0]), plain(interval[1]))
    places = max(-math.floor(math.log10(half / 2)), 0)  # two digits of 0.10 to 0.19
    written, low, high = (f"{v:,.{places}f}".replace("-", "−") for v in (value, *interval))
    return written, (low, high)


def between(low: float, high: float) -> str:
    """A range; one number where its ends are written alike."""
    ends = plain(low), plain(high)
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def plain(value: float) -> str:
    """A number without powers of ten down to a millionth: what stands beside others is compared by its zeros.

    >>> plain(-0.00002), plain(14.6), plain(3e-9)
    ('−0.00002', '14.6', '3 × 10⁻⁹')
    """
    if 1e-6 <= abs(value) < 1e-4:
        return f"{value:.8f}".rstrip("0").replace("-", "−")
    return number(value)


def tick(value: float, step: float) -> str:
    """A label of an axis whose labels lie ``step`` apart."""
    if value == 0:
        return "0"
    if step >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    if abs(value) >= 10_000 and step >= 1_000:
        return f"{value / 1_000:g}k"
    if step < 1e-4:
        return number(value, 3)
    return f"{value:,.{max(-math.floor(math.log10(step)), 0)}f}".replace("-", "−")


def decades(exponents: list[int]) -> list[str]:
    """Powers of ten as labels of a logarithmic axis: in plain figures while all are short."""
    if min(exponents, default=0) > -3 and max(exponents, default=0) < 4:
        return [f"{10.0**e:g}" for e in exponents]
    return [f"10{str(e).translate(_SUPERSCRIPT)}" if e else "1" for e in exponents]


def duration(seconds: float) -> str:
    """Seconds in the two largest units that say something."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    if seconds < 600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
