"""Clips of a split in other voices, and what they are measured beside: reconstructions and random codes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ancestral.batch import evenly
from ancestral.capabilities import Converts
from ancestral.companding import expanded
from ancestral.evaluation.conversion import decoded, own_sound
from ancestral.evaluation.measurement import Examined
from ancestral.evaluation.speech import Features, Recordings, bands_of
from ancestral.pitch import pitches
from ancestral.spec import Spec

CLIPS = 64
"""Sounds that are converted: a decoder that draws takes its time."""


def chosen_of(test: Recordings) -> list[int]:
    """Which recordings are converted: as many of each speaker, and if possible those that others say too."""
    parallel = test.partners >= 0
    usable = parallel if parallel.any() else np.ones(len(test), bool)
    speakers, found = np.unique(test.labels[usable]), list[int]()
    for speaker in speakers:
        own = np.flatnonzero(usable & (test.labels == speaker))
        found += own[evenly(max(1, CLIPS // len(speakers)), len(own)).numpy()].tolist()
    return found[:CLIPS]


@dataclass(frozen=True)
class Version:
    """Clips, and whom they ought to sound like."""

    id: str
    """What it adds to a figure's id."""
    words: str
    clips: Sequence[Tensor]
    """``(C, T)`` each."""
    rows: Sequence[int]
    """The recording that each was made of."""
    targets: NDArray[np.int64]
    speakers: NDArray[np.int64]
    """Whose means of features each one has: the target's, or a real recording's own speaker's."""
    spec: Spec

    @cached_property
    def bands(self) -> list[Features]:
        """Log-mel spectra ``(frames, B)``."""
        return [bands_of(clip, self.spec) for clip in self.clips]

    @cached_property
    def pitches(self) -> list[NDArray[np.floating]]:
        """The pitches of each that are heard, in Hz."""
        return [heard(clip, self.spec) for clip in self.clips]


def heard(clip: Tensor, spec: Spec) -> NDArray[np.floating]:
    """The pitches of a sound ``(1, T)`` in the frames that have one, in Hz."""
    assert spec.rate is not None
    found = pitches(expanded(clip[0], spec), spec.rate)
    return found[found > 0].numpy()


def versions_of(
    examined: Examined, model: Converts, test: Recordings, chosen: Sequence[int]
) -> dict[str, Version]:
    """Conversions, reconstructions, random codes, and the originals."""
    originals = [own_sound(test.sounds, row) for row in chosen]
    own = test.labels[list(chosen)]
    partners = test.partners[list(chosen)]
    targets = np.where(partners >= 0, partners, (own + 1) % model.voices)
    codes = [
        tuple(level[test.rows[i]][None].long().to(model.device) for level in examined.codes) for i in chosen
    ]
    seed = torch.initial_seed() % 2**63
    generator = torch.Generator().manual_seed(seed)
    pools = [torch.cat([*level], 1).long() for level in examined.codes]
    drawn = [
        tuple(
            _drawn(pool, level.shape[-1], generator).to(model.device)
            for pool, level in zip(pools, levels, strict=True)
        )
        for levels in codes
    ]
    ways: list[tuple[str, str, Sequence[tuple[Tensor, ...]], NDArray[np.int64]]] = [
        ("", "converted", codes, targets),
        ("_reconstruction", "reconstructions", codes, own),
        ("_random", "random codes", drawn, targets),
    ]
    found = {}
    for id, words, levels, told in ways:
        clips = decoded(model, levels, told.tolist(), seed=seed, what=words, show=examined.progress)
        cut = [clip[:, : x.shape[1]] for clip, x in zip(clips, originals, strict=True)]
        found[id] = Version(id, words, cut, chosen, told, told, test.spec)
    found["_real"] = Version("_real", "real originals", originals, chosen, targets, own, test.spec)
    return found


def _drawn(pool: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Codes ``(1, M, n)``, those of each codebook drawn alone from all that it has ``(M, L)``."""
    places = torch.randint(pool.shape[1], (len(pool), n), generator=generator)
    return pool.gather(1, places)[None]
