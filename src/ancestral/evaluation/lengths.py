"""How long sounds are: seconds as samples, and models of sounds at another length than their training's."""

import math
from typing import TypeVar

from ancestral.capabilities import Lengthens, Tokenizer
from ancestral.errors import UserError
from ancestral.memory import check_room
from ancestral.model import Model

M = TypeVar("M", bound=Model)

_MOST = 2**31
"""Samples of a sound, as a spec counts them."""
_BYTES = 32
"""Of a sample while it is drawn: noise, values and what they follow from."""


def samples_of(model: Model, seconds: float, option: str = "seconds") -> int:
    """How many samples so many seconds are, to a model of sounds of any length.

    Raises:
        UserError: the model makes no such sounds, or there is no such number of samples.

    >>> from ancestral.models.autoregressive.wavenet import WaveNet
    >>> from ancestral.spec import Spec
    >>> samples_of(WaveNet(WaveNet.Config.tiny(), Spec(shape=(1, 64), rate=8000)), 1.5)
    12000
    """
    spec, name = model.spec, type(model).__name__
    if not isinstance(model, Lengthens) or spec.domain != "sound":
        problem = f"expected a model of sounds of any length for {option}, got a {name} of {spec.domain}s"
        raise UserError(problem, f"leave {option} out")
    if spec.rate is None:
        raise UserError(f"expected sounds with a rate for {option}, got none", f"leave {option} out")
    if not (seconds > 0 and math.isfinite(seconds)):
        raise UserError(f"expected {option} above 0, got {seconds:g}", "try 3")
    if seconds * spec.rate > _MOST:
        most = f"{_MOST // spec.rate:,}"
        raise UserError(f"expected {option} of at most {most}, got {seconds:g}", "ask for a shorter sound")
    length = round(seconds * spec.rate)
    if length < 1:
        problem = f"expected {option} for one sample at least, got {seconds:g}"
        raise UserError(problem, f"a sample takes {1 / spec.rate:.2g} s: try 3")
    check_room(length * _BYTES, f"a sound of {seconds:g} s", "ask for a shorter one")
    return length


def long_enough(model: M, length: int) -> M:
    """The model of examples ``(1, T)`` of this length, or of the next longer one that its codes fill."""
    if length == model.spec.shape[-1] or not isinstance(model, Lengthens):
        return model
    step = strides(model)[0] if isinstance(model, Tokenizer) else 1
    return model.at_length(-(-length // step) * step)


def strides(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Samples that a code of each level covers, of a tokenizer of sounds.

    >>> from ancestral.models.latent.sound_vqvae import SoundVQVAE
    >>> from ancestral.spec import Spec
    >>> strides(SoundVQVAE(SoundVQVAE.Config.tiny(), Spec(shape=(1, 16), rate=8000)))
    (4,)
    """
    return tuple(tokenizer.spec.shape[-1] // spec.shape[-1] for spec in tokenizer.code_specs())


def shortened(model: M, most: int) -> M:
    """A model of sounds, or of their codes, of at most so many values, but of whole contexts.

    >>> from ancestral.models.autoregressive.wavenet import WaveNet
    >>> from ancestral.spec import Spec
    >>> codes = Spec(shape=(1, 12), levels=4, domain="codes")
    >>> spec = Spec(shape=(1, 48), levels=4, contexts=(codes,))
    >>> shortened(WaveNet(WaveNet.Config.tiny(), spec), 30).spec.shape
    (1, 28)
    """
    spec = model.spec
    if not isinstance(model, Lengthens) or not spec.sequential or spec.dims <= most:
        return model
    length = spec.shape[-1]
    step = math.lcm(*(length // math.gcd(length, context.shape[-1]) for context in spec.contexts))
    fitting = max(1, most // spec.shape[0] // step) * step
    return model.at_length(fitting) if fitting < length else model
