"""What can be read from the codes of speech: who speaks, which they need not tell, and what is said."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ancestral.batch import evenly
from ancestral.capabilities import Tokenizer
from ancestral.data import SoundOptions
from ancestral.data.tones import RATE, SYMBOL_SAMPLES, TONES, symbols_of
from ancestral.data.voices import GCIN_VOICE, syllable_of
from ancestral.evaluation.measurement import Each, Examined, Result
from ancestral.evaluation.speech import (
    Features,
    Recordings,
    means_between,
    rank,
    share,
    slices,
    space_of,
    spread,
    unfit,
)
from ancestral.evaluation.tokens import encode_sounds
from ancestral.figures import Figure
from ancestral.measures.probe import linear_probe
from ancestral.measures.warping import warping_distances
from ancestral.model import Model
from ancestral.spectra import HOP

_TRAINING, _TESTS = 4000, 400
"""Recordings that probes learn from, and those that are looked for among another speaker's."""
_QUANTITY = "accuracy of a probe"


def applies(model: Model) -> bool:
    """Of tokenizers of sounds."""
    return isinstance(model, Tokenizer) and model.spec.domain == "sound"


def measure(examined: Examined) -> Result:
    """Linear probes, trained on the training split: the speaker, and where it is known, what is said.

    The speaker from histograms of the codes and from mean and spread of their vectors (the better of both
    counts), and from mean and spread of the log-mel spectrum. Of the synthetic tones the symbol at each code,
    from it and its two neighbors, and as van den Oord et al. (2017, section 4.4) probe phonemes, by the
    commonest symbol of each code in training. Of the syllables of gcin-voice initial, final and tone, from
    means of six parts of the time. Of what is recorded by several speakers, how often the nearest recording
    of another one says the same: in a space of such means that training recordings of the same words by
    different speakers make, and by dynamic time warping of code vectors or cepstra.
    """
    if "probes" not in examined.named:
        words = "left out: what can be read from the codes of speakers and of what they say, which takes "
        return Result(left_out=[f"{words}minutes: add --measures probes"])
    if reason := unfit(examined):
        return Result(left_out=[f"left out: probes, since {reason}"])
    data, model = examined.data, examined.model
    assert data is not None
    assert isinstance(model, Tokenizer)
    rows = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[:_TRAINING]
    train = Recordings.of(data, "train", rows.sort().values.tolist())
    test = Recordings.of(data, examined.split, range(len(examined.examples)))
    learned = Heard.of(model, train, encode_sounds(model, train.sounds, show=examined.progress))
    heard = Heard.of(model, test, examined.codes)
    figures = _speakers(learned, heard)
    trimmed = isinstance(data.preparation, SoundOptions) and data.preparation.trim
    if data.source == TONES and not trimmed:
        figures += _symbols(learned, heard)
    if data.source == GCIN_VOICE:
        figures += _syllables(learned, heard)
    return Result(figures=figures + _contents(learned, heard.only(test.short)))


@dataclass(frozen=True)
class Heard:
    """Recordings and their codes."""

    recordings: Recordings
    codes: list[NDArray[np.int64]]
    """Of each, the codes of all levels and codebooks, as often as the finest ones: ``(L, K)``."""
    sizes: tuple[int, ...]
    """Of each of the K codebooks."""
    vectors: list[Features]
    """What the codes stand for, ``(L, D)``."""
    stride: int
    """Samples that a code covers."""

    @classmethod
    def of(cls, model: Tokenizer, recordings: Recordings, levels: Sequence[Each]) -> "Heard":
        """Recordings with the codes that a model gives them."""
        codes, vectors = [], []
        for i in range(len(recordings)):
            own = tuple(level[i][None].long().to(model.device) for level in levels)
            long = own[-1].shape[-1]
            found = [vector[0].float().cpu().T.numpy() for vector in model.code_vectors(own)]
            vectors.append(np.concatenate([_repeated(vector, long) for vector in found], 1))
            codes.append(np.concatenate([_repeated(level[0].cpu().T.numpy(), long) for level in own], 1))
        specs = model.code_specs()
        sizes = tuple(spec.discrete_levels for spec in specs for _ in range(spec.shape[0]))
        stride = model.spec.shape[-1] // specs[-1].shape[-1]
        return cls(recordings, codes, sizes, vectors, stride)

    def only(self, places: Sequence[int]) -> "Heard":
        """Some of them."""
        return replace(
            self,
            recordings=self.recordings.only(places),
            codes=[self.codes[i] for i in places],
            vectors=[self.vectors[i] for i in places],
        )

    @property
    def histograms(self) -> Features:
        """How often each recording has each code, ``(N, codes)``."""
        return np.stack([_one_hot(codes, self.sizes).mean(0) for codes in self.codes])


def _repeated(values: NDArray[np.generic], long: int) -> NDArray[np.generic]:
    """A coarser level ``(l, D)`` at the places of the finest, ``(long, D)``."""
    return values[np.arange(long) * len(values) // long]


def _one_hot(codes: NDArray[np.int64], sizes: Sequence[int]) -> Features:
    """Codes ``(L, K)`` as vectors of zeros and K ones, ``(L, sum of sizes)``."""
    return np.concatenate([np.eye(n, dtype=np.float32)[codes[:, k]] for k, n in enumerate(sizes)], 1)


def _chance(known: NDArray[np.generic], asked: NDArray[np.generic]) -> str:
    """How often one is right who always says what is commonest in training, or guesses."""
    values, counts = np.unique(known, return_counts=True)
    return f"chance {max(np.mean(asked == values[counts.argmax()]), 1 / len(values)):.3f}"


def _speakers(learned: Heard, heard: Heard) -> list[Figure]:
    known, asked = learned.recordings.labels, heard.recordings.labels
    ways = {
        "histograms": (learned.histograms, heard.histograms),
        "vectors": tuple(np.stack([spread(v) for v in some.vectors]) for some in (learned, heard)),
    }
    hits = {way: linear_probe(x, known, y) == asked for way, (x, y) in ways.items()}
    best = max(hits, key=lambda way: hits[way].mean())
    each = ", ".join(f"{way} {right.mean():.3f}" for way, right in hits.items())
    from_sound = linear_probe(learned.recordings.timbres, known, heard.recordings.timbres) == asked
    chance = f"{_chance(known, asked)}; {len(asked):,} sounds"
    return [
        share(
            "probe_speaker_codes", "speaker, from the codes", hits[best],
            quantity=_QUANTITY, better="lower", note=f"{chance}; {each}",
        ),
        share(
            "probe_speaker_sound", "speaker, from the sound", from_sound,
            quantity=_QUANTITY, note=f"{chance}; mean and spread of log-mel",
        ),
    ]  # fmt: skip


def _symbols(learned: Heard, heard: Heard) -> list[Figure]:
    """The symbol at each code, whose middle says which it is."""
    known, asked = (np.concatenate(_symbols_at(some)) for some in (learned, heard))
    x, y = (
        np.concatenate([_with_neighbors(_one_hot(c, h.sizes)) for c in h.codes]) for h in (learned, heard)
    )
    a, b = (
        np.concatenate([_with_neighbors(_bands_at(h, i)) for i in range(len(h.codes))])
        for h in (learned, heard)
    )
    commonest = _commonest(learned, known)
    fallback = Counter(known.tolist()).most_common(1)[0][0]
    said = [commonest.get(tuple(code), fallback) for codes in heard.codes for code in codes.tolist()]
    note = f"{_chance(known, asked)}; {len(asked):,} codes"
    return [
        share(
            "probe_symbol_codes", "symbol, from a code and its neighbors", linear_probe(x, known, y) == asked,
            quantity=_QUANTITY, better="higher", note=note,
        ),
        share(
            "probe_symbol_commonest", "symbol, the commonest of each code", np.array(said) == asked,
            quantity=_QUANTITY, better="higher", note=note,
        ),
        share(
            "probe_symbol_sound", "symbol, from the sound at a code", linear_probe(a, known, b) == asked,
            quantity=_QUANTITY, note=f"{note}; log-mel with its neighbors",
        ),
    ]  # fmt: skip


def _commonest(learned: Heard, known: NDArray[np.int64]) -> dict[tuple[int, ...], int]:
    """The symbol that stands most often where codes of all levels are these."""
    found: dict[tuple[int, ...], Counter[int]] = {}
    rows = (tuple(code) for codes in learned.codes for code in codes.tolist())
    for code, symbol in zip(rows, known.tolist(), strict=True):
        found.setdefault(code, Counter())[symbol] += 1
    return {code: counts.most_common(1)[0][0] for code, counts in found.items()}


def _symbols_at(heard: Heard) -> list[NDArray[np.int64]]:
    """The symbol in the middle of what each code covers, ``(L,)`` of each recording."""
    found, scale = [], RATE / (heard.recordings.spec.rate or RATE) / SYMBOL_SAMPLES
    for name, codes in zip(heard.recordings.names, heard.codes, strict=True):
        symbols = np.array(symbols_of(name))
        places = ((np.arange(len(codes)) + 0.5) * heard.stride * scale).astype(np.int64)
        found.append(symbols[np.minimum(places, len(symbols) - 1)])
    return found


def _bands_at(heard: Heard, i: int) -> Features:
    """The mean log-mel spectrum of what each code of a recording covers, ``(L, B)``."""
    bands, hop = heard.recordings.bands[i], HOP * (heard.recordings.spec.rate or RATE)
    ends = np.arange(len(heard.codes[i]) + 1) * heard.stride / hop
    return means_between(bands, ends)


def _with_neighbors(features: Features) -> Features:
    """Features ``(L, D)`` beside those before and after them, ``(L, 3 D)``; zeros beyond the ends."""
    padded = np.pad(features, ((1, 1), (0, 0)))
    return np.concatenate([padded[:-2], features, padded[2:]], 1)


def _syllables(learned: Heard, heard: Heard) -> list[Figure]:
    """Initial, final and tone of a syllable, from the means of its parts."""
    figures = []
    parts = list(zip(_parts(learned), _parts(heard), strict=True))
    ways = {
        "codes": (learned.vectors, heard.vectors),
        "sound": (learned.recordings.bands, heard.recordings.bands),
    }
    for source, pair in ways.items():
        x, y = (np.stack([slices(each) for each in some]) for some in pair)
        for name, (known, asked) in zip(("initial", "final", "tone"), parts, strict=True):
            hits = linear_probe(x, known, y) == asked
            classes = f"{len(np.unique(known))} classes, {len(asked):,} syllables"
            figures.append(
                share(
                    f"probe_{name}_{source}", f"{name}, from the {source}", hits,
                    quantity=_QUANTITY, better="higher" if source == "codes" else None,
                    note=f"{_chance(known, asked)}; {classes}",
                )
            )  # fmt: skip
    return figures


def _parts(heard: Heard) -> list[NDArray[np.str_]]:
    """Initials, finals and tones, ``(N,)`` each."""
    return [np.array(part) for part in zip(*map(syllable_of, heard.recordings.names), strict=True)]


def _contents(learned: Heard, heard: Heard) -> list[Figure]:
    """Whether the nearest recording of another speaker says the same, by codes and by the sound."""
    recordings = heard.recordings
    partners = recordings.partners
    asked = np.flatnonzero(partners >= 0)
    asked = asked[evenly(_TESTS, len(asked)).numpy()]
    rows = {int(speaker): recordings.by(speaker) for speaker in np.unique(partners[asked])}
    if not rows or min(map(len, rows.values())) < 2:
        return []
    figures, odds = [], np.mean([1 / len(rows[int(partners[i])]) for i in asked])
    ways = {
        "codes": (learned.vectors, heard.vectors, heard.vectors),
        "sound": (learned.recordings.bands, recordings.bands, recordings.cepstra),
    }
    for source, (known, features, sequences) in ways.items():
        space = space_of(learned.recordings, known, recordings)
        if space is None:
            return []
        places = space(np.stack([slices(each) for each in features]), recordings.labels)
        found = {"space": list[int](), "warped": list[int]()}
        for i in asked.tolist():
            others = rows[int(partners[i])]
            prompts = [recordings.prompts[k] for k in others]
            distances = {
                "space": np.linalg.norm(places[others] - places[i], axis=1),
                "warped": warping_distances(sequences[i], [sequences[k] for k in others]),
            }
            for way, each in distances.items():
                found[way].append(rank(each, recordings.prompts[i], prompts))
        by_warping = np.mean(np.array(found["warped"]) == 1)
        figures.append(
            share(
                f"probe_content_{source}", f"nearest of another speaker says the same, by the {source}",
                np.array(found["space"]) == 1,
                quantity="share of nearest recordings that say the same",
                better="higher" if source == "codes" else None,
                note=f"chance {odds:.3f}; {len(asked):,} recordings; by time warping alone {by_warping:.3f}",
            )
        )  # fmt: skip
    return figures
