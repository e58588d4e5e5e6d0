"""Recordings whose speakers and contents are known, and what of a sound tells either."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ancestral.companding import expanded
from ancestral.data import Dataset, Sounds
from ancestral.evaluation.measurement import Examined
from ancestral.figures import Figure
from ancestral.measures.common_space import CommonSpace
from ancestral.spec import Spec
from ancestral.spectra import log_mel, mel_cepstra

_BANDS = 40
SECONDS = 4
"""How long sounds are at most that are warped or converted: both take their time."""
SLICES = 6
"""Parts of a recording, one after another, whose means say what it is."""

Features = NDArray[np.floating]
"""``(T, D)`` over time, or ``(N, D)`` of sounds."""


@dataclass(frozen=True)
class Recordings:
    """N recordings of a split, by speakers that are classes."""

    sounds: Sounds
    labels: NDArray[np.int64]
    """The speaker of each, ``(N,)``."""
    names: Sequence[str]
    prompts: Sequence[str]
    """What each says: its name without its speaker."""
    rows: Sequence[int]
    """Which of the split they are."""
    spec: Spec

    @classmethod
    def of(cls, data: Dataset[Sounds], split: str, rows: Sequence[int]) -> "Recordings":
        """Some recordings of a split of a data set with classes."""
        part, names = data.split(split), data.names_of(split)
        assert part.labels is not None
        labels = part.labels.numpy()
        return cls(
            sounds=part.only(torch.tensor(rows)),
            labels=labels[rows],
            names=[names[row] for row in rows],
            prompts=[prompt_of(names[row], data.classes[labels[row]]) for row in rows],
            rows=rows,
            spec=data.spec,
        )

    def only(self, places: Sequence[int]) -> "Recordings":
        """Some of them."""
        return Recordings(
            sounds=self.sounds.only(torch.tensor(places, dtype=torch.int64)),
            labels=self.labels[list(places)],
            names=[self.names[i] for i in places],
            prompts=[self.prompts[i] for i in places],
            rows=[self.rows[i] for i in places],
            spec=self.spec,
        )

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def bands(self) -> list[Features]:
        """The log-mel spectrum of each, ``(frames, B)``."""
        return [bands_of(self.sounds[i : i + 1].x[0], self.spec) for i in range(len(self))]

    @cached_property
    def timbres(self) -> Features:
        """See ``spread``, of the spectra: ``(N, 2 B)``."""
        return np.stack([spread(bands) for bands in self.bands])

    @cached_property
    def cepstra(self) -> list[Features]:
        """The mel cepstra of each, ``(frames, 13)`` in dB."""
        return [cepstra_of(bands) for bands in self.bands]

    @property
    def short(self) -> list[int]:
        """Which of them last at most 4 seconds."""
        most = SECONDS * (self.spec.rate or 1)
        return (self.sounds.lengths <= most).nonzero()[:, 0].tolist()

    def by(self, speaker: int) -> list[int]:
        """Which of them are by a speaker."""
        return np.flatnonzero(self.labels == speaker).tolist()

    @cached_property
    def partners(self) -> NDArray[np.int64]:
        """For each, another speaker who says the same, the next one of the classes; -1 if there is none."""
        says: dict[str, set[int]] = {}
        for prompt, label in zip(self.prompts, self.labels.tolist(), strict=True):
            says.setdefault(prompt, set()).add(label)
        found = np.full(len(self), -1)
        for i, (prompt, label) in enumerate(zip(self.prompts, self.labels.tolist(), strict=True)):
            if others := says[prompt] - {label}:
                found[i] = min(others, key=lambda other: (other < label, other))
        return found


def unfit(examined: Examined) -> str:
    """Why speakers cannot be told apart in the data; nothing if they can."""
    data = examined.data
    if data is None or not isinstance(data.train, Sounds) or data.spec.rate is None:
        return "the data are no recordings with a rate"
    if examined.split not in ("validation", "test"):
        return f"they learn from the training split: evaluate another than {examined.split}"
    if data.spec.classes < 2 or data.train.labels is None or data.split(examined.split).labels is None:
        return "the data have no several classes, which are the speakers"
    return ""


def prompt_of(name: str, speaker: str) -> str:
    """What a recording says, by its name in a data set and the class of its speaker.

    >>> prompt_of("bass/a-c-e-b", "bass"), prompt_of("ㄊㄢ3/5", "5"), prompt_of("test/anna/yes.wav", "anna")
    ('a-c-e-b', 'ㄊㄢ3', 'test/yes.wav')
    """
    return "/".join(part for part in name.split("/") if part != speaker)


def bands_of(x: Tensor, spec: Spec) -> Features:
    """The log-mel spectrum of a sound ``(1, T)``, ``(frames, B)``."""
    assert spec.rate is not None
    bands: Features = log_mel(expanded(x, spec), spec.rate, _BANDS)[0].T.numpy()
    return bands


def cepstra_of(bands: Features) -> Features:
    """The mel cepstra in dB of a log-mel spectrum, ``(frames, 13)``."""
    cepstra: Features = mel_cepstra(torch.from_numpy(bands.T.copy())[None])[0].T.numpy()
    return cepstra


def spread(features: Features) -> Features:
    """Mean and standard deviation over time of features ``(T, D)``, ``(2 D,)``."""
    return np.concatenate([features.mean(0), features.std(0)])


def slices(features: Features) -> Features:
    """Means of features ``(T, D)`` in equal parts of the time, and how long that is: ``(M,)``."""
    parts = means_between(features, np.arange(SLICES + 1) * len(features) / SLICES)
    return np.append(parts.ravel(), np.log(len(features)))


def means_between(features: Features, ends: NDArray[np.floating]) -> Features:
    """Means of features ``(T, D)`` between places, of one at least, ``(len(ends) - 1, D)``."""
    first = np.minimum(np.floor(ends[:-1]).astype(int), len(features) - 1)
    last = np.maximum(np.ceil(ends[1:]).astype(int), first + 1)
    return np.stack([features[a:b].mean(0) for a, b in zip(first, last, strict=True)])


def space_of(known: Recordings, features: Sequence[Features], asked: Recordings) -> CommonSpace | None:
    """The space of contents that parallel recordings make, by features ``(T, D)`` of each.

    None if they are not parallel, or others are asked for by speakers whom they do not know.
    """
    if not set(asked.labels) <= set(known.labels):
        return None
    x = np.stack([slices(each) for each in features])
    return CommonSpace.fit(x, np.array(known.prompts), known.labels)


def rank(distances: NDArray[np.floating], prompt: str, prompts: Sequence[str]) -> int:
    """At which place the nearest lies that says the same, from 1 on; beyond all of them if none does.

    >>> rank(np.array([0.0, 1.0, 2.0]), "no", ["yes", "no", "no"])
    2
    """
    order = np.argsort(distances, kind="stable").tolist()
    return next((place for place, i in enumerate(order, 1) if prompts[i] == prompt), len(order) + 1)


def share(id: str, name: str, hits: Sequence[bool] | NDArray[np.bool_], **about: object) -> Figure:
    """How many of some are right, with the standard error of a share."""
    value, n = float(np.mean(hits)), len(hits)
    error = (value * (1 - value) / n) ** 0.5
    return Figure(id=id, name=name, value=value, standard_error=error, **about)  # type: ignore[arg-type]
