"""Whether sounds that are decoded in another voice are in that voice, and still say the same.

Three numbers: a decoder that ignores its codes has the voice without fault, and one that ignores the speaker
says all that a reconstruction does.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ancestral.batch import evenly
from ancestral.capabilities import Converts
from ancestral.evaluation.batches import together
from ancestral.evaluation.conversion import own_sound
from ancestral.evaluation.measurement import Examined, Result
from ancestral.evaluation.speech import (
    SECONDS,
    Recordings,
    cepstra_of,
    rank,
    share,
    slices,
    space_of,
    spread,
    unfit,
)
from ancestral.evaluation.versions import Version, chosen_of, heard, versions_of
from ancestral.figures import Figure
from ancestral.measures.common_space import CommonSpace
from ancestral.measures.probe import linear_probe
from ancestral.measures.warping import warping_distances
from ancestral.media import Sheet, comparison
from ancestral.model import Model
from ancestral.spec import Spec

_TRAINING = 4000
"""Recordings that the classifier of speakers and the space of contents learn from."""
_SHOWN, _SPEAKERS = 4, 8
"""Sounds of the picture, and speakers up to whom the pitch of each is told."""
_VOICE = "share that a classifier takes for the target"
_KEPT = "share whose content is found again"


def applies(model: Model) -> bool:
    """Of models whose decoder is told the speaker."""
    return isinstance(model, Converts) and model.spec.domain == "sound"


def measure(examined: Examined) -> Result:
    """The voice, the content and the pitch of converted test sounds.

    Beside them stand reconstructions, told their own speaker, which are heard against that one's recordings
    (the ceiling); random codes, each drawn from those of the split, in the target's voice (the floor, above
    chance since they last as long as the original); and real recordings. The voice is what a linear probe of
    mean and spread of the log-mel spectrum says, trained on real recordings of the training split. Where the
    same is recorded by several speakers, the content is that of the target's own recording: how far its
    cepstra are, and whether it is the nearest of all that the target says in this split, in the space of
    contents that training recordings make (``CommonSpace``).
    """
    model = examined.model
    assert isinstance(model, Converts)
    if "conversion" not in examined.named:
        words = "left out: conversion to other voices, which takes minutes: add --measures conversion"
        return Result(left_out=[words])
    if reason := _unfit(examined, model):
        return Result(left_out=[f"left out: conversion, since {reason}"])
    data = examined.data
    assert data is not None
    rows = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[:_TRAINING]
    train = Recordings.of(data, "train", rows.sort().values.tolist())
    whole = Recordings.of(data, examined.split, range(len(examined.examples)))
    test = whole.only(whole.short)
    if not len(test):
        return Result(left_out=[f"left out: conversion, since all sounds are longer than {SECONDS} s"])
    chosen = chosen_of(test)
    versions = versions_of(examined, model, test, chosen)
    note = f"{len(chosen):,} sounds of at most {SECONDS} s"
    figures = _voices(train, test, versions, note)
    if (test.partners >= 0).any() and (space := space_of(train, train.bands, test)) is not None:
        figures += _contents(space, test, versions, note)
    figures += _pitches(test, versions, note, data.classes)

    def sheet() -> Sheet:
        return _sheet(model.spec, test, versions, data.classes)

    return Result(figures=figures, pictures={"conversions": sheet})


def _unfit(examined: Examined, model: Converts) -> str:
    """Why nothing can be converted; nothing if it can."""
    if reason := unfit(examined):
        return reason
    if model.voices < 2:
        return "the decoder is told no speaker"
    return "" if examined.examples.labels is not None else "the speakers are others than the model's"


def _voices(train: Recordings, test: Recordings, versions: dict[str, Version], note: str) -> list[Figure]:
    """How often the classifier of speakers hears the target."""
    told = {id: version for id, version in versions.items() if id != "_real"}
    asked = [np.stack([spread(bands) for bands in version.bands]) for version in told.values()]
    verdicts = linear_probe(train.timbres, train.labels, np.concatenate([test.timbres, *asked]))
    real = verdicts[: len(test)] == test.labels
    figures, first = [], len(test)
    for id, version in told.items():
        hits = verdicts[first : first + len(version.clips)] == version.targets
        first += len(version.clips)
        about: dict[str, Any] = {"quantity": _VOICE, "better": None if id else "higher", "note": note}
        figures.append(
            share(f"conversion_target_rate{id}", f"target speaker, {version.words}", hits, **about)
        )
    words = f"the classifier on {len(real):,} real recordings, {len(train):,} others in training"
    figures.append(
        share("conversion_target_rate_real", "target speaker, real", real, quantity=_VOICE, note=words)
    )
    return figures


def _contents(space: CommonSpace, test: Recordings, versions: dict[str, Version], note: str) -> list[Figure]:
    """How far the target's own recording of the same is, and whether it is the nearest of all of these."""
    places = space(np.stack([slices(bands) for bands in test.bands]), test.labels)
    distances, figures = [], []
    kept: dict[str, NDArray[np.int64]] = {}
    for id, version in versions.items():
        at = space(np.stack([slices(bands) for bands in version.bands]), version.speakers)
        apart, found = [], []
        for k, row in enumerate(version.rows):
            others = test.by(int(version.targets[k]))
            prompts, prompt = [test.prompts[i] for i in others], test.prompts[row]
            warped = warping_distances(cepstra_of(version.bands[k]), [test.cepstra[i] for i in others])
            same = [distance for distance, p in zip(warped, prompts, strict=True) if p == prompt]
            apart.append(min(same, default=np.nan))
            near = np.linalg.norm(places[others] - at[k], axis=1)
            found.append((rank(near, prompt, prompts), rank(warped, prompt, prompts), len(others)))
        kept[id] = np.array(found)
        distances.append(_distance(version, np.array(apart), note))
    for top in (1, 5):
        for id, version in versions.items():
            nearest, warped, many = kept[id].T
            chance = float(np.minimum(1, top / many).mean())
            more = "; the original is among them" if id == "_reconstruction" else ""
            ceiling = (kept["_reconstruction"][:, 0] <= top).mean()
            if not id and ceiling:
                more = f"; {(nearest <= top).mean() / ceiling:.2f} of what reconstructions keep"
            figures.append(
                share(
                    f"conversion_kept_top{top}{id}",
                    f"content among the {top} nearest, {version.words}" if top > 1 else
                    f"content is the nearest, {version.words}",
                    nearest <= top,
                    quantity=f"{_KEPT}, top {top}", better=None if id else "higher",
                    note=f"chance {chance:.3f}; by time warping {(warped <= top).mean():.3f}{more}",
                )
            )  # fmt: skip
    return distances + figures


def _distance(version: Version, apart: NDArray[np.floating], note: str) -> Figure:
    apart = apart[~np.isnan(apart)]
    whose = "the original" if version.id == "_reconstruction" else "the target's own recording"
    return Figure(
        id=f"conversion_mel_cepstral_distance{version.id}",
        name=f"mel-cepstral distance, {version.words}",
        value=float(apart.mean()),
        standard_error=float(apart.std(ddof=1) / len(apart) ** 0.5) if len(apart) > 1 else None,
        quantity="mel-cepstral distance",
        unit="dB",
        better=None if version.id else "lower",
        note=f"to {whose}, time warped; {note}",
    )


def _pitches(
    test: Recordings, versions: dict[str, Version], note: str, classes: Sequence[str]
) -> list[Figure]:
    """How far the pitch is from the target's, and the pitch in each voice."""
    real = [heard(own_sound(test.sounds, i), test.spec) for i in range(len(test))]
    own = {int(k): _median([real[i] for i in test.by(int(k))]) for k in np.unique(test.labels)}
    figures = []
    for version in versions.values():
        apart = []
        for k, row in enumerate(version.rows):
            target = int(version.targets[k])
            same = [i for i in test.by(target) if test.prompts[i] == test.prompts[row]]
            expected = _median([real[i] for i in same]) if same else own.get(target, np.nan)
            apart.append(abs(12 * np.log2(_median([version.pitches[k]]) / expected)))
        values = np.array(apart)[~np.isnan(apart)]
        if len(values):
            figures.append(
                Figure(
                    id=f"conversion_pitch_distance{version.id}",
                    name=f"pitch beside the target's, {version.words}",
                    value=float(np.median(values)),
                    quantity="distance of median pitches",
                    unit="semitones",
                    better=None if version.id else "lower",
                    note=f"median over {len(values):,} sounds that have one",
                )
            )
    return figures + _by_speaker(versions, own, classes)


def _by_speaker(versions: dict[str, Version], real: dict[int, float], classes: Sequence[str]) -> list[Figure]:
    """The median pitch of what was converted to each speaker, beside the speaker's own."""
    figures, converted, again = [], versions[""], versions["_reconstruction"]
    for target in np.unique(converted.targets)[:_SPEAKERS].tolist():
        rows, same = (np.flatnonzero(version.targets == target).tolist() for version in (converted, again))
        value = _median([converted.pitches[k] for k in rows])
        if np.isnan(value):
            continue
        others = {
            "target's real recordings": real.get(target, np.nan),
            "reconstructions": _median([again.pitches[k] for k in same]),
            f"the originals of these {len(rows)}": _median([versions["_real"].pitches[k] for k in rows]),
        }
        figures.append(
            Figure(
                id=f"conversion_pitch_{target}",
                name=f"median pitch, converted to {classes[target] if classes else target}",
                value=value,
                quantity="pitch",
                unit="Hz",
                note=", ".join(f"{name} {hertz:.0f}" for name, hertz in others.items()),
            )
        )
    return figures


def _median(several: Sequence[NDArray[np.floating]]) -> float:
    """The median of all pitches together, NaN if there are none."""
    values = np.concatenate(several) if len(several) else np.empty(0)
    return float(np.median(values)) if len(values) else float("nan")


def _sheet(spec: Spec, test: Recordings, versions: dict[str, Version], classes: Sequence[str]) -> Sheet:
    """Originals, reconstructions and conversions of some sounds, evenly from all."""
    converted = versions[""]
    rows = evenly(_SHOWN, len(converted.clips)).tolist()
    series = {"original": "_real", "reconstruction": "_reconstruction", "converted": ""}
    shown = {
        name: together([versions[id].clips[i] for i in rows], spec.silence) for name, id in series.items()
    }
    lengths = torch.tensor([converted.clips[i].shape[-1] for i in rows])
    ends = [(int(test.labels[converted.rows[i]]), int(converted.targets[i])) for i in rows]
    heads = [" to ".join(classes[k] if classes else str(k) for k in end) for end in ends]
    picture = comparison(spec, *shown.values(), series=list(shown), heads=heads, lengths=lengths)
    return Sheet(picture, spec, shown, lengths)
