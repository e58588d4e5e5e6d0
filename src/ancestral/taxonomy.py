"""The taxonomy: one row for each model, by how it represents a distribution and how it learns.

Imports no torch.
"""

import functools
import importlib
import importlib.metadata
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ancestral.errors import UserError, nearest, shown

if TYPE_CHECKING:
    from ancestral.model import Model

Representation = Literal["autoregressive", "latent", "flow", "adversarial"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model of the taxonomy."""

    name: str
    """What commands call it."""
    title: str
    """What papers call it."""
    paper: str
    """Authors, year and arXiv address."""
    representation: Representation
    """The family: what stands for the distribution."""
    learning: str
    """What training does."""
    likelihood: Literal["exact", "bound", "none"]
    """What its figures of likelihood are."""
    path: str
    """``module:Class``, of this library below ``ancestral.models``."""

    @property
    def place(self) -> tuple[str, str]:
        """The module and the class."""
        module, _, name = self.path.partition(":")
        return f"ancestral.models.{module}" if module.partition(".")[0] in FAMILIES else module, name


FAMILIES: dict[Representation, str] = {
    "autoregressive": "factorized: p(x) = ∏ p(xᵢ | x₍<ᵢ₎)",
    "latent": "latent variables: p(x) = ∫ p(x|z) p(z) dz",
    "flow": "invertible: x = f(z)",
    "adversarial": "learned against a critic: x = g(z)",
}

_ML, _VB, _ADV = "maximum likelihood", "variational bound", "adversarial game"


def _arxiv(authors: str, number: str) -> str:
    return f"{authors}, https://arxiv.org/abs/{number}"


TAXONOMY: tuple[Row, ...] = (
    Row(name="pixelrnn", title="PixelRNN", paper=_arxiv("van den Oord et al. 2016", "1601.06759"),
        representation="autoregressive", learning=_ML, likelihood="exact",
        path="autoregressive.pixelrnn:PixelRNN"),
    Row(name="pixelcnn", title="PixelCNN", paper=_arxiv("van den Oord et al. 2016", "1601.06759"),
        representation="autoregressive", learning=_ML, likelihood="exact",
        path="autoregressive.pixelcnn:PixelCNN"),
    Row(name="gated-pixelcnn", title="Gated PixelCNN", paper=_arxiv("van den Oord et al. 2016", "1606.05328"),
        representation="autoregressive", learning=_ML, likelihood="exact",
        path="autoregressive.gated_pixelcnn:GatedPixelCNN"),
    Row(name="pixelcnnpp", title="PixelCNN++", paper=_arxiv("Salimans et al. 2017", "1701.05517"),
        representation="autoregressive", learning=_ML, likelihood="exact",
        path="autoregressive.pixelcnnpp:PixelCNNpp"),
    Row(name="pixelsnail", title="PixelSNAIL", paper=_arxiv("Chen et al. 2017", "1712.09763"),
        representation="autoregressive", learning=_ML, likelihood="exact",
        path="autoregressive.pixelsnail:PixelSNAIL"),
    Row(name="wavenet", title="WaveNet", paper=_arxiv("van den Oord et al. 2016", "1609.03499"),
        representation="autoregressive", learning=_ML, likelihood="exact",
        path="autoregressive.wavenet:WaveNet"),
    Row(name="transformer", title="Transformer", paper=_arxiv("Vaswani et al. 2017", "1706.03762"),
        representation="autoregressive", learning=_ML, likelihood="exact",
        path="autoregressive.transformer:Transformer"),
    Row(name="vae", title="VAE", paper=_arxiv("Kingma & Welling 2013", "1312.6114"),
        representation="latent", learning=_VB, likelihood="bound", path="latent.vae:VAE"),
    Row(name="vqvae", title="VQ-VAE", paper=_arxiv("van den Oord et al. 2017", "1711.00937"),
        representation="latent", learning=_VB + ", then a learned prior", likelihood="bound",
        path="latent.vqvae:VQVAE"),
    Row(name="vqvae2", title="VQ-VAE-2", paper=_arxiv("Razavi et al. 2019", "1906.00446"),
        representation="latent", learning=_VB + ", then learned priors", likelihood="bound",
        path="latent.vqvae2:VQVAE2"),
    Row(name="vqvae-sound", title="VQ-VAE of sound", paper=_arxiv("van den Oord et al. 2017", "1711.00937"),
        representation="latent", learning=_VB + ", then learned priors",
        likelihood="bound", path="latent.sound_vqvae:SoundVQVAE"),
    Row(name="nice", title="NICE", paper=_arxiv("Dinh et al. 2014", "1410.8516"),
        representation="flow", learning=_ML, likelihood="bound",
        path="flow.nice:NICE"),
    Row(name="realnvp", title="Real NVP", paper=_arxiv("Dinh et al. 2016", "1605.08803"),
        representation="flow", learning=_ML, likelihood="bound",
        path="flow.realnvp:RealNVP"),
    Row(name="maf", title="MAF", paper=_arxiv("Papamakarios et al. 2017", "1705.07057"),
        representation="flow", learning=_ML, likelihood="bound",
        path="flow.maf:MAF"),
    Row(name="iaf", title="IAF", paper=_arxiv("Kingma et al. 2016", "1606.04934"),
        representation="flow", learning=_VB, likelihood="bound",
        path="flow.iaf:IAF"),
    Row(name="glow", title="Glow", paper=_arxiv("Kingma & Dhariwal 2018", "1807.03039"),
        representation="flow", learning=_ML, likelihood="bound",
        path="flow.glow:Glow"),
    Row(name="flowpp", title="Flow++", paper=_arxiv("Ho et al. 2019", "1902.00275"),
        representation="flow", learning=_ML, likelihood="bound", path="flow.flowpp:FlowPP"),
    Row(name="gan", title="GAN", paper=_arxiv("Goodfellow et al. 2014", "1406.2661"),
        representation="adversarial", learning=_ADV, likelihood="none",
        path="adversarial.gan:GAN"),
    Row(name="improved-gan", title="Improved GAN", paper=_arxiv("Salimans et al. 2016", "1606.03498"),
        representation="adversarial", learning=_ADV, likelihood="none",
        path="adversarial.improved_gan:ImprovedGAN"),
    Row(name="dcgan", title="DCGAN", paper=_arxiv("Radford et al. 2015", "1511.06434"),
        representation="adversarial", learning=_ADV, likelihood="none",
        path="adversarial.dcgan:DCGAN"),
    Row(name="cgan", title="Conditional GAN", paper=_arxiv("Mirza & Osindero 2014", "1411.1784"),
        representation="adversarial", learning=_ADV, likelihood="none",
        path="adversarial.cgan:ConditionalGAN"),
    Row(name="wgan", title="WGAN", paper=_arxiv("Arjovsky et al. 2017", "1701.07875"),
        representation="adversarial", learning=_ADV, likelihood="none",
        path="adversarial.wgan:WGAN"),
    Row(name="progan", title="ProGAN", paper=_arxiv("Karras et al. 2017", "1710.10196"),
        representation="adversarial", learning=_ADV, likelihood="none",
        path="adversarial.progan:ProGAN"),
    Row(name="sagan", title="SAGAN", paper=_arxiv("Zhang et al. 2018", "1805.08318"),
        representation="adversarial", learning=_ADV, likelihood="none",
        path="adversarial.sagan:SAGAN"),
    Row(name="stylegan", title="StyleGAN", paper=_arxiv("Karras et al. 2018", "1812.04948"),
        representation="adversarial", learning=_ADV, likelihood="none",
        path="adversarial.stylegan:StyleGAN"),
    Row(name="stylegan2", title="StyleGAN2", paper=_arxiv("Karras et al. 2019", "1912.04958"),
        representation="adversarial", learning=_ADV, likelihood="none",
        path="adversarial.stylegan2:StyleGAN2"),
    Row(name="biggan", title="BigGAN", paper=_arxiv("Brock et al. 2018", "1809.11096"),
        representation="adversarial", learning=_ADV, likelihood="none",
        path="adversarial.biggan:BigGAN"),
)  # fmt: skip


INSTRUMENTS = {"classifier": "ancestral.measures.classifier:Classifier"}
"""What is trained like a model and represents no distribution: it measures the models that do."""


@functools.cache
def rows() -> tuple[Row, ...]:
    """The rows of this library and those that installed packages add.

    They add them as entry points of the group ``ancestral.models``. An entry point names a ``Row``, whose
    ``path`` is absolute; its module should not import torch, so that lists stay fast.
    """
    found = list(TAXONOMY)
    for point in importlib.metadata.entry_points(group="ancestral.models"):
        try:
            added = point.load()
        except Exception as error:  # of somebody else's package, which must not break this one
            warnings.warn(f"the models of {point.value} are left out: {error}", stacklevel=2)
            continue
        if isinstance(added, Row) and added.name not in {r.name for r in found}:
            found.append(added)
        else:
            warnings.warn(f"{point.value} is left out: expected a Row with a name of its own", stacklevel=2)
    return tuple(found)


def row(name: str) -> Row:
    """The row of a model. Raises UserError for an unknown name."""
    known = {r.name: r for r in rows()}
    found = known.get(name)
    if found is None:
        problem = f"expected the name of a model or module:Class, got {name!r}"
        raise UserError(problem, nearest(name, [*known, *INSTRUMENTS]))
    return found


def model_class(name: str) -> "type[Model]":
    """The class of a model, imported now, by its name in the taxonomy or as ``module:Class``.

    Raises:
        UserError: there is none of this name, or what has this name is no model.

    >>> model_class("vae").__name__, model_class("ancestral.models.latent.vae:VAE").__name__
    ('VAE', 'VAE')
    """
    name = INSTRUMENTS.get(name, name)
    if ":" not in name:
        return import_model(*row(name).place)
    module, _, attribute = name.partition(":")
    return import_model(module, attribute)


def import_model(module: str, name: str) -> "type[Model]":
    """The class ``name`` of a module. Raises UserError if it cannot be imported or is no model."""
    from ancestral.model import Model  # noqa: PLC0415 - the taxonomy is read without torch

    if not all(part.isidentifier() for part in module.split(".")):
        problem = f"expected the name of a module, got {shown(module)}"
        raise UserError(problem, "write the class as module:Class")
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        problem = f"expected a module that can be imported, got {module}"
        remedy = "install its package, or give the command in the folder that it is in"
        raise UserError(problem, remedy) from None
    except AttributeError:
        raise UserError(f"expected a class {name} in {module}, got none", "check the name") from None
    if not (isinstance(found, type) and issubclass(found, Model)):
        raise UserError(f"expected a subclass of ancestral.Model, got {module}:{name}", "check the name")
    return found


def title(cls: type) -> str:
    """What papers call the model of a class; the class's own name if it has no row."""
    found = _row_of(cls)
    return found.title if found else cls.__name__


def name_of(cls: type) -> str:
    """What commands call a class: the name of its row, ``module:Class`` if it has none."""
    path = f"{cls.__module__}:{cls.__qualname__}"
    found = _row_of(cls)
    return found.name if found else next((name for name, p in INSTRUMENTS.items() if p == path), path)


def _row_of(cls: type) -> Row | None:
    return next((r for r in rows() if r.place == (cls.__module__, cls.__qualname__)), None)
