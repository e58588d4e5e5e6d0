"""What some models can do besides sampling and likelihood.

Commands ask ``isinstance``; none knows a model by name.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from copy import copy
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from ancestral.batch import Batch
from ancestral.errors import UserError, check_type
from ancestral.model import Model, numbers_of, unwatched
from ancestral.sampling import PLAIN, Sampling
from ancestral.spec import Spec


class Completes(Model):
    """A model that can take a part of the values as given and draw the rest."""

    def complete(
        self,
        x: Tensor,
        known: Tensor,
        labels: Tensor | None = None,
        *,
        contexts: Sequence[Tensor] = (),
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: Generator | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Tensor:
        """Examples with the values of ``x`` that are known, and the others drawn given those before them.

        Args:
            x: examples ``(n, *spec.shape)``.
            known: which of their values stay, boolean, broadcast to ``x``; those that come after a value have
                no influence on it.
            labels: classes ``(n,)``; None draws them at random where the model has classes.
            contexts: what the model is conditioned on.
            temperature: see ``Sampling``, as for the other options.
            top_k: likeliest levels to draw from.
            top_p: their probability in all.
            generator: source of all randomness, on the model's device.
            progress: called now and then with the share of the work that is done.

        Raises:
            UserError: an argument out of its range or of another shape.
        """
        options = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
        self.check_sampling(options)
        self.spec.check(x)
        known = broadcast_known(known, tuple(x.shape)).to(self.device)
        labels, contexts = self._given(len(x), labels, contexts, generator)
        with torch.no_grad():
            given = (x.to(self.device), known, labels, contexts, options)
            return self.fill(*given, generator=generator, progress=progress or unwatched)

    @abstractmethod
    def fill(
        self,
        x: Tensor,
        known: Tensor,
        labels: Tensor | None,
        contexts: tuple[Tensor, ...],
        options: Sampling,
        *,
        generator: Generator | None,
        progress: Callable[[float], None],
    ) -> Tensor:
        """What ``complete`` returns; its arguments are checked, and classes are drawn, when it is called."""


def broadcast_known(known: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A mask of known values, expanded to ``shape``.

    Raises:
        UserError: it is not boolean or does not broadcast to it.

    >>> upper_half = (torch.arange(4) < 2).view(4, 1)
    >>> broadcast_known(upper_half, (5, 1, 4, 4)).sum()
    tensor(40)
    """
    check_type(known, Tensor, "a boolean mask of known values", "give a tensor")
    if known.dtype != torch.bool:
        raise UserError(
            f"expected a boolean mask of known values, got {known.dtype}", "compare: known = mask > 0"
        )
    try:
        return known.expand(shape)
    except RuntimeError as error:
        raise UserError(
            f"expected a mask of shape {shape}, got {tuple(known.shape)}", "give one value for each of x's"
        ) from error


class Lengthens(Model):
    """A model of sounds, or of codes of them, that takes and makes examples of any length."""

    def at_length(self, length: int) -> Self:
        """The model, by the same weights, of examples of another length.

        Raises:
            UserError: the data are of another kind, or the length is no whole number of codes.
        """
        other = copy(self)
        other.spec = self.spec.at_length(length)
        return other


class Reconstructs(Model):
    """A model that compresses an example to something smaller and gets an approximation back."""

    @abstractmethod
    def reconstruct(self, x: Tensor) -> Tensor:
        """The model's version of ``x``: integers of the same shape."""

    def version(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """``reconstruct`` of ``x``, by a decoder that is told the classes if it is one (see ``Converts``)."""
        return self.reconstruct(x)


class Decodes(Model):
    """A model that makes an example of a vector of real numbers, a priori independent and around 0."""

    mixes_classes: ClassVar[bool] = False
    """Whether ``decode`` takes shares of the classes ``(N, sample_classes)``, real numbers, for labels."""

    @abstractmethod
    def draw_latents(self, n: int, options: Sampling = PLAIN, generator: Generator | None = None) -> Tensor:
        """Latent vectors ``(n, latents)`` as ``sample`` draws them, on the model's device."""

    @abstractmethod
    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Examples ``(N, *spec.shape)`` from latent vectors ``(N, latents)``, and classes likewise."""


class Renders(Decodes):
    """A model whose images follow vectors with gradients, so that those of an image can be looked for."""

    @abstractmethod
    def vectors(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """What images follow, of latents and classes, ``(N, ...)``: the latents themselves, or styles."""

    @abstractmethod
    def render(self, v: Tensor, labels: Tensor | None = None) -> Tensor:
        """Examples as the spec scales them of such vectors and classes, with gradients.

        In [-1, 1], or about so where nothing cuts a network off; ``to_examples`` makes images of them.
        """

    @abstractmethod
    def to_examples(self, y: Tensor) -> Tensor:
        """What ``render`` gives as examples ``(N, *spec.shape)``, of the spec's dtype."""


class Styled(Renders):
    """A model whose layers follow a style each: ``vectors`` are ``(N, layers, styles)``, coarse to fine."""

    @abstractmethod
    def render(self, v: Tensor, labels: Tensor | None = None, *, noise: bool = True) -> Tensor:
        """See ``Renders.render``; with the same noise for every image, or none."""

    def checked(self, v: Tensor, layers: int, styles: int) -> Tensor:
        """Vectors where the model is. Raises UserError unless they are ``(N, layers, styles)``."""
        check_type(v, Tensor, "a tensor of vectors", "give what vectors gives")
        if v.dim() != 3 or tuple(v.shape[1:]) != (layers, styles):
            problem = f"expected vectors (N, {layers}, {styles}), got {tuple(v.shape)}"
            raise UserError(problem, "give what vectors gives")
        return v.to(self.device, self.dtype)

    @staticmethod
    def mix(v: Tensor, other: Tensor, layers: Sequence[int]) -> Tensor:
        """Vectors ``(N, layers, styles)`` whose ``layers`` follow others (Karras et al., 2018, section 3.1).

        Args:
            v: the vectors.
            other: as many, or one for all.
            layers: whose vectors are the other's; the first are coarse, the last are fine.

        Raises:
            UserError: there are no such layers, or the vectors do not go together.
        """
        check_type(layers, Sequence, "the numbers of layers", "give a range: range(4)")
        if v.dim() != 3 or other.shape[1:] != v.shape[1:] or len(other) not in (1, len(v)):
            problem = (
                f"expected vectors (N, layers, styles) twice, got {tuple(v.shape)} and {tuple(other.shape)}"
            )
            raise UserError(problem, "give what vectors gives")
        count = v.shape[1]
        if wrong := [layer for layer in layers if not 0 <= layer < count]:
            problem = f"expected layers from 0 to {count - 1} to mix, got {wrong[0]}"
            raise UserError(problem, f"choose some of range({count})")
        chosen = torch.zeros(count, dtype=torch.bool, device=v.device)
        chosen[list(layers)] = True
        return torch.where(chosen.view(1, -1, 1), other, v)


class ContinuousLatents(Decodes):
    """A model that finds the vector behind an example too."""

    @abstractmethod
    def embed(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The mean latent vector of each example, ``(N, latents)``.

        A model that draws by class takes the examples' classes ``(N,)``.
        """


class Classifies(Model):
    """A model that has learned classes beside, and says how likely each is."""

    @abstractmethod
    def class_logits(self, x: Tensor) -> Tensor:
        """Unnormalized log p(class | x), ``(N, classes)``."""

    def hits(self, x: Tensor, labels: Tensor) -> Tensor:
        """Whether the likeliest class is the right one: 0 or 1 of each example, ``(N,)`` float64."""
        return (self.class_logits(x).argmax(1) == labels).double()

    @property
    def classifies(self) -> bool:
        """Whether this configuration does."""
        return True


class Tokenizer(Reconstructs):
    """A model that turns examples into maps of code indices and back, on one or several levels."""

    @property
    def level_names(self) -> tuple[str, ...]:
        """What the levels are called, coarse to fine."""
        return tuple(f"level {i}" for i in range(len(self.code_specs())))

    @property
    def progressive(self) -> bool:
        """Whether ``detokenize`` takes the coarser levels alone: if the decoder has met such codes."""
        return False

    @abstractmethod
    def tokenize(self, x: Tensor) -> tuple[Tensor, ...]:
        """One code map ``(N, M, h, w)`` of int64 indices for each level, coarse to fine."""

    def to_codes(self, x: Tensor) -> tuple[Tensor, ...]:
        """``tokenize`` of examples that are known to fit: it may leave out the look at their values."""
        return self.tokenize(x)

    @abstractmethod
    def detokenize(self, codes: tuple[Tensor, ...]) -> Tensor:
        """Integers ``(N, *spec.shape)`` decoded from code maps; inverse to ``tokenize`` up to its loss."""

    def decoded(self, codes: tuple[Tensor, ...], labels: Tensor | None = None) -> Tensor:
        """``detokenize``, by a decoder that is told the classes if it is one (see ``Converts``)."""
        return self.detokenize(codes)

    @abstractmethod
    def code_specs(self) -> tuple[Spec, ...]:
        """What each code map is: its shape and codebook size."""

    def check_codes(self, codes: Sequence[Tensor], *, some: bool = False) -> None:
        """Raise UserError unless ``codes`` are a map for each level, of as many examples each.

        With ``some``, and of a ``progressive`` model, they may be those of the first levels.
        """
        specs = self.code_specs()
        check_type(
            codes, tuple | list, "a sequence of code maps", "give what tokenize gave: a map for each level"
        )
        least = 1 if some or self.progressive else len(specs)
        if not least <= len(codes) <= len(specs):
            count = f"1 to {len(specs)}" if least < len(specs) else str(len(specs))
            plural = "s" * (len(specs) > 1)
            raise UserError(
                f"expected {count} code map{plural} (one for each level), got {len(codes)}",
                "give what tokenize gave",
            )
        for spec, level in zip(specs, codes, strict=False):
            try:
                spec.check(level)
            except UserError as error:
                raise UserError(
                    f"{error.problem} as codes", "give what tokenize gave, of this model"
                ) from None
            if not len(level) or len(level) != len(codes[0]):
                got = ", ".join(str(len(c)) for c in codes)
                raise UserError(
                    f"expected as many code maps on each level, at least 1, got {got}",
                    "give what tokenize gave",
                )

    @torch.no_grad()
    def finer(
        self,
        codes: Sequence[Tensor],
        labels: Tensor | None = None,
        *,
        options: Sampling | None = None,
        generator: Generator | None = None,
    ) -> tuple[Tensor, ...]:
        """The codes of all levels, of which the first are given, and the finer ones drawn from their priors.

        Args:
            codes: maps of the first levels, one at least.
            labels: classes ``(N,)``; without them they are drawn, where the priors have classes, by how
                likely the codes make each.
            options: how the priors are sharpened.
            generator: source of all randomness, on the model's device.

        Raises:
            UserError: codes, labels or options that do not fit, or a model that draws no codes.
        """
        options = Sampling() if options is None else options
        self.check_codes(codes, some=True)
        self.check_sampling(options)
        if labels is not None:
            self.check_labels(labels, len(codes[0]))
            labels = labels.to(self.device)
        levels = tuple(level.to(self.device).long() for level in codes)
        if len(levels) == len(self.code_specs()):
            return levels
        return tuple(level.long() for level in self.draw_finer(levels, labels, options, generator))

    def draw_finer(
        self, codes: tuple[Tensor, ...], labels: Tensor | None, options: Sampling, generator: Generator | None
    ) -> tuple[Tensor, ...]:
        """What ``finer`` returns; its arguments are checked when it is called, and some level is missing."""
        raise UserError(
            f"expected a model that draws finer codes, got {type(self).__name__}", "give all levels"
        )

    @abstractmethod
    def rates(
        self, codes: tuple[Tensor, ...], labels: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """-log p(codes) of each level under its learned prior, given the coarser ones, ``(N,)`` nats each.

        The codes may be those of the first levels alone, as for the two functions below. Lengths are those
        of padded sounds, as in ``Batch``.
        """

    @abstractmethod
    def distortion(self, batch: Batch, codes: tuple[Tensor, ...]) -> Tensor:
        """-log p(x|codes) of a batch's examples, ``(N,)`` nats."""

    @abstractmethod
    def code_vectors(self, codes: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The features ``(N, D, h, w)`` that the codes of each level stand for."""


class Converts(Tokenizer):
    """A tokenizer whose decoder is told the class, so that codes of one may be decoded as another."""

    @property
    def voices(self) -> int:
        """The number of classes that the decoder is told; 0 if it is told none."""
        return self.spec.classes

    @abstractmethod
    def decode(
        self,
        codes: Sequence[Tensor],
        labels: Tensor | None = None,
        *,
        generator: Generator | None = None,
        progress: Callable[[float], None] = unwatched,
    ) -> Tensor:
        """Examples from codes of each level and classes ``(N,)``; None: of no class in particular.

        Without a generator, the noise of a decoder that draws is always the same.
        """

    @abstractmethod
    def convert(self, x: Tensor, labels: Tensor | None, generator: Generator | None = None) -> Tensor:
        """``decode`` of the codes of ``x``, as long as ``x``."""

    def version(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """See ``Reconstructs.version``."""
        return self.convert(x, labels)

    def decoded(self, codes: tuple[Tensor, ...], labels: Tensor | None = None) -> Tensor:
        """See ``Tokenizer.decoded``."""
        return self.decode(codes, labels)

    def voice_of(self, name: int | str) -> int:
        """The class of a name or a number, as ``classes_of`` reads them, that the decoder can be told.

        Raises:
            UserError: there is no such class, or the decoder does not know several.
        """
        if self.voices < 2:
            got = "one that knows no classes" if not self.voices else "one of a single class"
            problem = f"expected a model of several voices to convert to one of them, got {got}"
            raise UserError(problem, "train it on data with a folder for each speaker")
        return numbers_of([name], self.classes, self.voices)[0]
