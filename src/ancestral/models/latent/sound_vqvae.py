"""VQ-VAE of sound (van den Oord et al., 2017, section 4.4), https://arxiv.org/abs/1711.00937.

With the log-mel input and the time jitter of Chorowski et al., Unsupervised speech representation learning
using WaveNet autoencoders, 2019, https://arxiv.org/abs/1901.08810, and the auxiliary decoder of De Fauw et
al., Hierarchical autoregressive image models with auxiliary decoders, 2019, https://arxiv.org/abs/1903.04933.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import interpolate, mse_loss, pad, relu

from ancestral.batch import Batch
from ancestral.capabilities import Converts, Lengthens
from ancestral.companding import compressed, expanded
from ancestral.configuration import Blocks, Configuration, NonNegative, Range, Share, Width
from ancestral.errors import UserError
from ancestral.model import LikelihoodKind, Model, unwatched
from ancestral.models.autoregressive.transformer import Transformer
from ancestral.models.autoregressive.wavenet import WaveNet
from ancestral.models.latent.quantized import CODES, Codes, TwoStage, names_of_levels
from ancestral.models.latent.quantizers import FiniteScalar, Vector
from ancestral.nn.quantize import Quantized, Quantizer
from ancestral.nn.sequences import (
    Downsampling,
    ResidualSequence,
    Upsampling,
    jittered,
    normalized,
    own,
    wrapped,
)
from ancestral.recipe import Optimization, Recipe
from ancestral.sampling import Sampling
from ancestral.spec import Spec
from ancestral.spectra import log_mel, multi_resolution_stft_distance
from ancestral.stages import Loss, Progress
from ancestral.units import bits, bits_per_dim


@dataclass(frozen=True, kw_only=True)
class FeedForward(Configuration):
    """A decoder of transposed convolutions: fast, and without a likelihood."""

    kind: ClassVar = "feed-forward"

    least_width: Width = 32
    """Channels at the finest resolution."""
    spectral_weight: NonNegative = 1.0
    """Weight of the multi-resolution spectral distance beside the squared error of the waveform."""


_HEARD = (-8.0, 4.0)
"""Middle and spread of the logarithm of a mel band's power in speech: the encoder is given it around 0."""


class Given(nn.Module):
    """What a decoder is conditioned on: features at the rate of the codes, and the class everywhere."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.classes = nn.Embedding(classes, width) if classes else None

    def forward(
        self,
        labels: Tensor | None,
        contexts: Sequence[Tensor],
        dtype: torch.dtype,
        own: tuple[Tensor, int] | None = None,
    ) -> Tensor:
        """Features ``(N, E, L)`` as a map ``(N, E, 1, L)``."""
        (features,) = contexts
        condition = features[:, :, None].to(dtype)
        if self.classes is not None and labels is not None:
            condition = condition + self.classes(labels.long())[:, :, None, None]
        return condition


class Condition(nn.Module):
    """Codes of all levels, seen together with their neighbors: ``(N, D, L)`` each to ``(N, E, L)``."""

    def __init__(self, inputs: int, outputs: int, config: "SoundVQVAE.Config") -> None:
        super().__init__()
        self.first = nn.Conv1d(inputs, config.width, 3, padding=1)
        self.blocks = nn.ModuleList(
            ResidualSequence(config.width, config.residual_width) for _ in range(config.blocks)
        )
        self.last = nn.Conv1d(config.width, outputs, 1)

    def forward(self, z: Sequence[Tensor], lengths: Tensor | None) -> Tensor:
        """The coarser levels are repeated up to the finest, of which ``lengths`` are."""
        finest = z[-1].shape[2]
        stacked = torch.cat([interpolate(level, size=finest, mode="nearest") for level in z], 1)
        h = own(self.first(stacked), lengths)
        for block in self.blocks:
            h = block(h, lengths)
        return own(self.last(relu(h)), lengths)


class Sketch(nn.Module):
    """Mel bands of features ``(N, E, L)`` and the class, those of a code together: ``(N, B hops, L)``.

    An auxiliary decoder (De Fauw et al., 2019), for training alone.
    """

    def __init__(self, classes: int, features: int, config: "SoundVQVAE.Config") -> None:
        super().__init__()
        self.given = Given(classes, features)
        self.first = nn.Conv1d(features, config.width, 3, padding=1)
        self.block = ResidualSequence(config.width, config.residual_width)
        self.last = nn.Conv1d(config.width, config.bands * config.hops, 1)

    def forward(self, features: Tensor, labels: Tensor | None, lengths: Tensor | None) -> Tensor:
        """``(N, B hops, L)``, where ``lengths`` of the features are the sound's own."""
        h = self.given(labels, (features,), features.dtype)[:, :, 0]
        h = self.block(own(self.first(own(h, lengths)), lengths), lengths)
        found: Tensor = self.last(relu(h))
        return found


class SoundVQVAE(TwoStage, Lengthens, Converts):
    """Codes of sounds ``(N, 1, T)`` at a few dozen hertz, a decoder that is told the speaker, and priors.

    Strided convolutions bring the waveform, or its log-mel spectrogram, to features; these are quantized on
    one level or several, coarse to fine, each finer one given the coarser. The decoder is a WaveNet that sees
    the codes and the class (the speaker), so that the codes need not tell it, or a feed-forward one. What is
    padded is zero in every layer: a padded batch has the likelihood of the sounds alone.

    Codes are ``(N, M, ceil(T / stride))``. Sounds may be of any length: codes cover them to their end.

    >>> model = SoundVQVAE(SoundVQVAE.Config.tiny(), Spec(shape=(1, 16), levels=16, rate=8000)).eval()
    >>> codes = model.tokenize(torch.zeros(2, 1, 21, dtype=torch.int64))
    >>> codes[0].shape, model.detokenize(codes).shape
    (torch.Size([2, 1, 6]), torch.Size([2, 1, 24]))
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Model.Config):
        """Options of the VQ-VAE of sound."""

        strides: tuple[Annotated[int, Range(least=1, most=2**20)], ...] = (256,)
        """Samples that a code of each level covers, coarse to fine, each a power of 2 times the next."""
        input: Literal["log-mel", "waveform"] = "log-mel"
        """What the encoder sees: mel bands, which say little of the speaker's waveform, or the waveform."""
        bands: Width = 40
        """Mel bands."""
        hops: Annotated[int, Range(least=1, most=2**10)] = 4
        """Frames of mel bands in a code of the finest level: a power of 2."""
        width: Width = 128
        """Channels of the encoder, and of what the decoder is conditioned on before its own layers."""
        blocks: Blocks = 2
        """Residual blocks of the encoder and of that condition."""
        residual_width: Width = 64
        """Hidden channels of a residual block."""
        jitter: Share = 0.12
        """Share of the places whose code is replaced by a neighbor's in training."""
        unknown: Share = 0.1
        """Share of the sounds whose class the decoder is not told in training, so that it can do without."""
        auxiliary: NonNegative = 0.0
        """Weight of the squared error of mel bands that a small network makes of codes and class in training,
        beside a WaveNet: a decoder that knows the past is slow to learn what the codes are for."""
        quantizer: Codes = field(default_factory=Vector)
        """How features become codes, on each level."""
        decoder: WaveNet.Config | FeedForward = field(default_factory=WaveNet.Config)
        """What makes a sound of codes."""
        prior: WaveNet.Config | Transformer.Config = field(default_factory=WaveNet.Config)
        """The model of the codes of each level."""

        @classmethod
        def tiny(cls) -> "SoundVQVAE.Config":
            """Small enough for a test."""
            return cls(
                strides=(4,), input="waveform", width=6, blocks=1, residual_width=4, jitter=0.0,
                quantizer=Vector(codebook_size=4, dim=4), decoder=WaveNet.Config.tiny(),
                prior=WaveNet.Config.tiny(),
            )  # fmt: skip

    default_data: ClassVar = "tones"
    choices: ClassVar = {
        "quantizer": CODES,
        "prior": (WaveNet.Config(layers=5, cycles=2, dropout=0.1), Transformer.Config(dropout=0.1)),
        "decoder": (WaveNet.Config(layers=9, cycles=2), FeedForward()),
    }
    recipes: ClassVar = {
        "small": Recipe(
            source="a start for a quarter of an hour of speech at 8 kHz on two CPU cores",
            model=Config(
                strides=(128,),
                bands=20,
                unknown=0.05,
                auxiliary=1.0,
                quantizer=Vector(codebook_size=64),
                decoder=WaveNet.Config(width=48, gate_width=48, skip_width=96, layers=9, cycles=2),
                prior=WaveNet.Config(layers=5, cycles=2, dropout=0.1),
            ),
            stages={
                "tokenizer": Optimization(steps=5000, batch_size=8, learning_rate=2e-3, compile=True),
                "prior": Optimization(steps=800, batch_size=32, learning_rate=2e-3, keep_best=True),
            },
        ),
        "tones": Recipe(
            source="a start for a quarter of an hour of two CPU cores on the embedded tones",
            model=Config(
                strides=(128,),
                width=64,
                blocks=1,
                unknown=0.05,
                auxiliary=1.0,
                quantizer=Vector(codebook_size=64, dim=32),
                decoder=WaveNet.Config(width=32, gate_width=32, skip_width=64, layers=7, cycles=2),
                prior=WaveNet.Config(width=48, gate_width=48, layers=4, cycles=2, dropout=0.1),
            ),
            stages={
                "tokenizer": Optimization(steps=4000, batch_size=4, learning_rate=8e-3, compile=True),
                "prior": Optimization(steps=400, batch_size=32, learning_rate=2e-3, keep_best=True),
            },
        ),
        "vctk": Recipe(
            source="van den Oord et al. 2017, section 4.4: six convolutions of stride 2 and window 4, 512 "
            "codes, a WaveNet decoder; its sizes, the prior's and all of training are ours",
            model=Config(
                strides=(64,), input="waveform", width=768, residual_width=768, jitter=0.0,
                quantizer=Vector(update="gradient", kmeans_start=False, revive_below=0.0),
                decoder=WaveNet.Config(width=256, gate_width=256, skip_width=256, layers=10, cycles=3),
                prior=WaveNet.Config(width=256, gate_width=256, skip_width=512, layers=8, cycles=2),
            ),
            stages={
                "tokenizer": Optimization(
                    steps=500_000, batch_size=16, learning_rate=2e-4, schedule="constant", ema=0.9999
                ),
                "prior": Optimization(steps=250_000, batch_size=64, learning_rate=2e-4),
            },
        ),
        "zerospeech": Recipe(
            source="Chorowski et al. 2019 in outline: log-mel at 100 Hz to codes at 50 Hz of 16 kHz, 4096 of "
            "64 dimensions, jitter .12, a WaveNet of 2 cycles of 10; rates and the prior are ours",
            model=Config(
                strides=(320,), bands=80, hops=2, width=768, residual_width=768,
                quantizer=Vector(codebook_size=4096),
                decoder=WaveNet.Config(width=368, gate_width=368, skip_width=256, layers=10, cycles=2),
                prior=WaveNet.Config(width=256, gate_width=256, skip_width=512, layers=8, cycles=2),
            ),
            stages={
                "tokenizer": Optimization(steps=500_000, batch_size=64, learning_rate=4e-4, ema=0.9999),
                "prior": Optimization(steps=250_000, batch_size=64, learning_rate=2e-4),
            },
        ),
    }  # fmt: skip

    decoder: WaveNet | Upsampling

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        self._check(spec)
        ratios = [coarse // fine for coarse, fine in pairwise(config.strides)]
        sizes: dict[str, Any] = {
            "width": config.width, "blocks": config.blocks, "hidden": config.residual_width,
        }  # fmt: skip
        mel = config.input == "log-mel"
        inputs, factor = (config.bands, config.hops) if mel else (1, config.strides[-1])
        self.encoder = Downsampling(inputs, factor=factor, **sizes)
        # Each list is in the order of the levels, from the coarsest on.
        self.encoders = nn.ModuleList(Downsampling(config.width, factor=ratio, **sizes) for ratio in ratios)
        self.quantizers = nn.ModuleList(config.quantizer.build() for _ in config.strides)
        dims = [quantizer.dim for quantizer in self.level_quantizers]
        self.projections = nn.ModuleList(
            nn.Conv1d(config.width + sum(dims[:i]), dim, 1) for i, dim in enumerate(dims)
        )
        speakers = spec.classes + 1 if spec.classes else 0  # the last one says that it is unknown
        places = spec.shape[1] // config.strides[-1]
        if isinstance(config.decoder, WaveNet.Config):
            features = config.decoder.condition_width
            sound = replace(spec, classes=speakers, contexts=(Spec(shape=(features, places), levels=None),))
            self.decoder = config.decoder.build(sound)
            self.decoder.conditioner = Given(speakers if config.decoder.class_conditional else 0, features)
        else:
            features = config.width
            self.given = Given(speakers, features)
            least = config.decoder.least_width
            self.decoder = Upsampling(1, factor=config.strides[-1], least=least, **sizes)
        self.condition = Condition(sum(dims), features, config)
        if self.sketches:
            self.sketch = Sketch(speakers, features, config)
        self.priors = nn.ModuleList(config.prior.build(of) for of in self.prior_specs())

    @property
    def sketches(self) -> bool:
        """Whether there is an auxiliary decoder: a feed-forward one has its spectral distance."""
        return bool(self.config.auxiliary) and isinstance(self.config.decoder, WaveNet.Config)

    def _check(self, spec: Spec) -> None:
        """Raise UserError unless the strides and the sounds go together."""
        config = self.config
        if spec.domain != "sound" or spec.shape[0] != 1 or spec.levels is None:
            problem = f"expected sounds (1, T) of integers, got {spec.domain} {spec.shape}"
            raise UserError(problem, "train vqvae or vqvae2 on images")
        doubling = [(a, b) for a, b in pairwise(config.strides) if a % b or not _is_power(a // b) or a == b]
        if not config.strides or doubling:
            got = f"{config.strides}"
            problem = f"expected strides, each a power of 2 times the next, got {got}"
            raise UserError(problem, "try 256, or 256 64")
        if not _is_power(config.hops):
            raise UserError(f"expected a power of 2 as hops, got {config.hops}", "try 4")
        finest = config.strides[-1]
        if config.input == "log-mel" or self.sketches:
            if spec.rate is None:
                how = "take input waveform, without an auxiliary decoder"
                raise UserError("expected sounds with a rate for mel bands, got none", how)
            if finest % config.hops:
                problem = f"expected a stride that {config.hops} frames divide, got {finest}"
                raise UserError(problem, "change --model.hops or --model.strides")
        for option, fits in (("input waveform", "waveform"), ("decoder feed-forward", "feed-forward")):
            asked = fits in (config.input, config.decoder.kind)
            if asked and not _is_power(finest):
                problem = f"expected a power of 2 as the finest stride for {option}, got {finest}"
                raise UserError(problem, "try 64 or 256")
        if spec.shape[1] % config.strides[0]:
            problem = f"expected sounds of a multiple of {config.strides[0]} samples, got {spec.shape[1]}"
            nearest = max(1, round(spec.shape[1] / config.strides[0])) * config.strides[0]
            raise UserError(problem, f"give --sound.length {nearest}")

    @property
    def level_names(self) -> tuple[str, ...]:
        """``prior`` of one level; else ``top``, ``middle`` (several: ``middle1``, …) and ``bottom``."""
        return names_of_levels(len(self.config.strides))

    @classmethod
    def options_of(cls, stage: str) -> tuple[str, ...]:
        """See ``Model.options_of``: those of the priors, whatever their level is called."""
        return () if stage == "tokenizer" else ("prior",)

    @property
    def level_quantizers(self) -> tuple[Quantizer, ...]:
        """See ``TwoStage.level_quantizers``."""
        return tuple(self.quantizers)  # type: ignore[arg-type]

    @property
    def level_priors(self) -> tuple[WaveNet | Transformer, ...]:
        """See ``TwoStage.level_priors``."""
        return tuple(self.priors)  # type: ignore[arg-type]

    def code_specs(self) -> tuple[Spec, ...]:
        """See ``Tokenizer.code_specs``."""
        return tuple(
            Spec(
                shape=(quantizer.num_codebooks, self.spec.shape[1] // stride),
                levels=quantizer.codebook_size,
                classes=self.spec.classes,
                domain="codes",
            )
            for quantizer, stride in zip(self.level_quantizers, self.config.strides, strict=True)
        )

    def code_lengths(self, lengths: Tensor | None, i: int) -> Tensor | None:
        """See ``TwoStage.code_lengths``: of all levels they cover the same samples."""
        coarsest = self.config.strides[0]
        if lengths is None:
            return None
        return (lengths + coarsest - 1) // coarsest * (coarsest // self.config.strides[i])

    def at_length(self, length: int) -> Self:
        """See ``Lengthens.at_length``. Raises UserError unless it is a multiple of the coarsest stride."""
        coarsest = self.config.strides[0]
        if length % coarsest:
            problem = f"expected a length in steps of {coarsest}, as the codes are, got {length}"
            raise UserError(problem, f"give {-(-length // coarsest) * coarsest}")
        other = super().at_length(length)
        other._modules = dict(self._modules)  # which the copy would share
        if isinstance(self.decoder, WaveNet):
            other.decoder = self.decoder.at_length(length)
        pairs = zip(self.level_priors, self.config.strides, strict=True)
        other.priors = nn.ModuleList(prior.at_length(length // stride) for prior, stride in pairs)
        return other

    def whole(self, batch: Batch) -> Batch:
        """The batch with sounds that end where a code does, and what they have of their own."""
        excess = -batch.x.shape[2] % self.config.strides[0]
        if not excess:
            return batch
        lengths = batch.counts if batch.lengths is None else batch.lengths
        return replace(batch, x=pad(batch.x, (0, excess)), lengths=lengths)

    def heard(self, batch: Batch, kind: str) -> Tensor:
        """Whole sounds as waveforms ``(N, 1, T)`` or mel bands ``(N, B, frames)``."""
        if kind == "waveform":
            return own(self.scale(batch.x), batch.lengths)
        assert self.spec.rate is not None
        amplitudes = own(expanded(batch.x, self.spec).to(self.dtype), batch.lengths)[:, 0]
        hop = self.config.strides[-1] // self.config.hops
        middle, spread = _HEARD
        with torch.autocast(batch.x.device.type, enabled=False):
            bands = log_mel(amplitudes, self.spec.rate, self.config.bands, hop=hop)
        return (bands[..., : amplitudes.shape[1] // hop] - middle) / spread

    def encode(self, batch: Batch) -> tuple[Quantized, ...]:
        """See ``TwoStage.encode``: features fine to coarse, then codes coarse to fine."""
        batch, levels = self.whole(batch), len(self.config.strides)
        lengths = [self.code_lengths(batch.lengths, i) for i in range(levels)]
        heard = self.heard(batch, self.config.input)
        frames = self.config.hops if self.config.input == "log-mel" else self.config.strides[-1]
        finest = lengths[-1]
        features = [self.encoder(own(heard, None if finest is None else finest * frames), finest)]
        for i in range(levels - 2, -1, -1):
            features.insert(0, self.encoders[i](features[0], lengths[i]))
        found: list[Quantized] = []
        for i, feature in enumerate(features):
            size = feature.shape[2]
            coarser = [interpolate(level.z, size=size, mode="nearest") for level in found]
            h = self.projections[i](torch.cat([*coarser, feature], 1))
            if not isinstance(self.config.quantizer, FiniteScalar):
                h = normalized(h)
            quantized = self.quantizers[i](wrapped(h, lengths[i]))
            found.append(replace(quantized, z=own(quantized.z, lengths[i])))
        return tuple(found)

    def features(self, z: Sequence[Tensor], lengths: Tensor | None) -> Tensor:
        """What the decoder is conditioned on, ``(N, E, L)``, given quantized features of each level."""
        finest = self.code_lengths(lengths, len(z) - 1)
        if self.training and self.config.jitter:
            places = [self.code_lengths(lengths, i) for i in range(len(z))]
            z = [jittered(level, self.config.jitter, n) for level, n in zip(z, places, strict=True)]
        kept = [own(level, self.code_lengths(lengths, i)) for i, level in enumerate(z)]
        found: Tensor = self.condition(kept, finest)
        return found

    @property
    def voices(self) -> int:
        """See ``Converts.voices``."""
        config = self.config.decoder
        told = not isinstance(config, WaveNet.Config) or config.class_conditional
        return self.spec.classes if told else 0

    def speakers(self, labels: Tensor | None, n: int) -> Tensor | None:
        """The classes that the decoder is told, ``(n,)``: that they are unknown where there are no labels."""
        if not self.spec.classes:
            return None
        if labels is None:
            return torch.full((n,), self.spec.classes, device=self.device)
        if self.training and self.config.unknown:
            hidden = torch.rand(n, device=labels.device) < self.config.unknown
            return labels.where(~hidden, self.spec.classes)
        return labels

    def loss(self, batch: Batch, phase: str, progress: Progress) -> Loss:
        """Equation 3 of the paper in bits/sample (or, of a feed-forward decoder, distances), or a prior's."""
        if phase in self.level_names:
            return self.level_priors[self.level_names.index(phase)].loss(batch, phase, progress)
        batch, levels = self.whole(batch), self.encode(batch)
        commitment = torch.stack([q.loss for q in levels]).sum()
        terms = {"commitment": commitment.detach()}
        for name, quantized in zip(self.level_names, levels, strict=True):
            terms["perplexity" if len(levels) == 1 else f"{name}_perplexity"] = quantized.perplexity
        z, speakers = [q.z for q in levels], self.speakers(batch.labels, len(batch))
        if not isinstance(self.decoder, WaveNet):
            apart, spectral = self._distances(batch, z, speakers)
            assert isinstance(self.config.decoder, FeedForward)
            total = apart + self.config.decoder.spectral_weight * spectral + commitment
            return Loss(total, {"mse": apart.detach(), "spectral": spectral.detach()} | terms)
        features = self.features(z, batch.lengths)
        nats = self._decoder_cost(batch, features, speakers)
        total = bits_per_dim(nats.mean(), batch.x.shape[2]) + commitment
        shown = bits(nats.sum() / batch.counts.sum()).detach()
        if self.sketches:
            apart = self._sketch_error(batch, features, speakers)
            total, terms = total + self.config.auxiliary * apart, {"sketch": apart.detach()} | terms
        return Loss(total, {"decoder_bits_per_sample": shown} | terms)

    def _sketch_error(self, batch: Batch, features: Tensor, speakers: Tensor | None) -> Tensor:
        """Mean squared error of the mel bands that the auxiliary decoder gives."""
        lengths = self.code_lengths(batch.lengths, len(self.config.strides) - 1)
        bands = self.heard(batch, "log-mel").unflatten(2, (-1, self.config.hops))
        target = bands.permute(0, 3, 1, 2).flatten(1, 2)
        found = self.sketch(features, speakers, lengths).to(target)
        counts = found.new_full((len(found),), found.shape[2]) if lengths is None else lengths
        return own((found - target).square(), lengths).sum() / (counts.sum() * found.shape[1])

    def _decoder_cost(self, batch: Batch, features: Tensor, speakers: Tensor | None) -> Tensor:
        """-log p(x|c) of whole sounds, ``(N,)`` nats."""
        if not isinstance(self.decoder, WaveNet):
            problem = "expected a decoder with a likelihood, got a feed-forward one"
            raise UserError(problem, "train with --model.decoder wavenet")
        return -self.decoder.log_likelihood(Batch(batch.x, speakers, (features,), batch.lengths))

    def _distances(self, batch: Batch, z: Sequence[Tensor], speakers: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean squared error of the waveform, and distance of spectra, of the feed-forward decoder."""
        assert self.spec.rate is not None
        y = own(self._waveform(z, speakers, batch.lengths), batch.lengths)
        x = own(expanded(batch.x, self.spec).to(y.dtype), batch.lengths)
        with torch.autocast(y.device.type, enabled=False):
            spectral = multi_resolution_stft_distance(
                y[:, 0].float(), x[:, 0].float(), self.spec.rate, batch.lengths
            )
        return mse_loss(y, x), spectral.mean()

    def _waveform(self, z: Sequence[Tensor], speakers: Tensor | None, lengths: Tensor | None) -> Tensor:
        """Amplitudes ``(N, 1, T)`` by the feed-forward decoder."""
        features = self.given(speakers, (self.features(z, lengths),), self.dtype)[:, :, 0]
        finest = self.code_lengths(lengths, len(z) - 1)
        waveform: Tensor = self.decoder(own(features, finest), finest)
        return waveform.tanh()

    @property
    def likelihood(self) -> LikelihoodKind:
        """See ``Model.likelihood``: a feed-forward decoder gives none."""
        return "bound" if isinstance(self.decoder, WaveNet) else "none"

    def distortion(self, batch: Batch, codes: Sequence[Tensor]) -> Tensor:
        """See ``Tokenizer.distortion``; given the class, where the batch has labels."""
        batch = self.whole(batch)
        features = self.features(self.code_vectors(codes), batch.lengths)
        return self._decoder_cost(batch, features, self.speakers(batch.labels, len(batch)))

    @torch.no_grad()
    def decode(
        self,
        codes: Sequence[Tensor],
        labels: Tensor | None = None,
        *,
        generator: Generator | None = None,
        progress: Callable[[float], None] = unwatched,
    ) -> Tensor:
        """See ``Converts.decode``: ``(N, 1, T)`` of codes ``(N, M, L)`` of each level."""
        z, speakers = self.code_vectors(codes), self.speakers(labels, len(codes[0]))
        if not isinstance(self.decoder, WaveNet):
            return compressed(self._waveform(z, speakers, None), self.spec)
        length = codes[-1].shape[2] * self.config.strides[-1]
        generator = generator or torch.Generator(self.device).manual_seed(0)
        uniforms = torch.rand(len(codes[0]), 1, length, device=self.device, generator=generator)
        contexts = (self.features(z, None),)
        decoder = self.decoder.at_length(length)
        return decoder.quantile(uniforms, speakers, contexts=contexts, progress=progress)

    def from_codes(self, codes: Sequence[Tensor]) -> Tensor:
        """See ``TwoStage.from_codes``."""
        return self.decode(codes)

    @torch.no_grad()
    def convert(self, x: Tensor, labels: Tensor | None, generator: Generator | None = None) -> Tensor:
        """See ``Converts.convert``."""
        codes = self.tokenize(x)
        return self.decode(codes, labels, generator=generator)[..., : x.shape[2]]

    def reconstruct(self, x: Tensor) -> Tensor:
        """See ``Reconstructs.reconstruct``: by the voice of nobody in particular."""
        return self.convert(x, None)

    def draw(
        self,
        n: int,
        labels: Tensor | None,
        contexts: tuple[Tensor, ...],
        options: Sampling,
        *,
        generator: Generator | None,
        progress: Callable[[float], None],
    ) -> Tensor:
        """See ``Model.draw``: codes from the priors, then a sound by the voice of the class."""
        codes = self._draw_codes((), n, labels, options, generator=generator, progress=unwatched)
        return self.decode(codes, labels, generator=generator, progress=progress)


def _is_power(n: int) -> bool:
    """Whether a number is a power of 2.

    >>> _is_power(1), _is_power(12)
    (True, False)
    """
    return n & (n - 1) == 0
