"""Probes and conversions of models whose codes are known: what is said, and by whom, or only one of both."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from ancestral.capabilities import Converts, Lengthens
from ancestral.companding import to_levels
from ancestral.data import Dataset, SoundOptions, Sounds
from ancestral.data.tones import SYMBOL_SAMPLES
from ancestral.data.voices import syllable_of
from ancestral.errors import UserError
from ancestral.evaluation import evaluate
from ancestral.evaluation.speech import Recordings, rank
from ancestral.evaluation.versions import chosen_of
from ancestral.measures.common_space import CommonSpace
from ancestral.measures.probe import linear_probe
from ancestral.model import Model
from ancestral.spec import Spec

STRIDE = SYMBOL_SAMPLES // 2
SPEC = Spec(shape=(1, 4 * STRIDE), classes=2, rate=8000, encoding="mu-law")
VOICES = {"low": 110, "high": 260}
FORMANTS = (350, 700, 1100, 1700, 2500)
"""Hz, of each symbol."""


def wave(symbol, pitch):
    t = np.arange(STRIDE) / 8000
    harmonics = [(k * pitch, 1 / (1 + ((k * pitch - FORMANTS[symbol]) / 200) ** 2)) for k in range(1, 14)]
    return sum(weight * np.sin(2 * np.pi * f * t + f) for f, weight in harmonics if f < 3800) / 8


WAVES = torch.from_numpy(
    np.stack([to_levels(np.stack([wave(s, pitch) for s in range(5)]), SPEC) for pitch in VOICES.values()])
)
"""Levels of a code's length, ``(voices, symbols, STRIDE)``."""


def split(first, last):
    """Sequences of 3 or 4 symbols, each by both voices."""
    random = np.random.default_rng(first)
    sequences = [random.integers(5, size=3 + i % 2) for i in range(first, last)]
    names = [f"{voice}/{'-'.join('abcde'[s] for s in each)}" for each in sequences for voice in VOICES]
    sounds = [WAVES[v, each.repeat(2)].flatten() for each in sequences for v in range(2)]
    lengths = torch.tensor([len(sound) for sound in sounds])
    labels = torch.arange(len(sounds)) % 2
    return Sounds(torch.cat(sounds)[:, None], lengths, labels, silence=128), tuple(names)


@pytest.fixture(scope="module")
def data():
    splits = {"train": split(0, 20), "validation": split(20, 22), "test": split(40, 50)}
    return Dataset(
        source="tones",
        spec=SPEC,
        **{name: sounds for name, (sounds, _) in splits.items()},
        classes=tuple(VOICES),
        names={name: names for name, (_, names) in splits.items()},
        preparation=SoundOptions(),
    )


class Perfect(Converts, Lengthens):
    """Its codes are the symbols, and those of the voices if ``tells``; it decodes what it is told."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Model.Config):
        tells: bool = False
        heeds_codes: bool = True
        heeds_voice: bool = True

    recipes: ClassVar = {}

    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def code_specs(self):
        shape = (1, self.spec.shape[1] // STRIDE)
        return (Spec(shape=shape, levels=5 * (1 + self.config.tells), classes=2, domain="codes"),)

    def tokenize(self, x):
        parts = x.reshape(len(x), 1, -1, 1, STRIDE)
        nearest = (parts.int() - WAVES.view(10, STRIDE).int()).abs().sum(-1).argmin(-1)
        return (nearest if self.config.tells else nearest % 5,)

    def code_vectors(self, codes):
        return (torch.nn.functional.one_hot(codes[0][:, 0], 10).float().transpose(1, 2),)

    def decode(self, codes, labels=None, *, generator=None, progress=None):
        symbols, voices = codes[0][:, 0] % 5, codes[0][:, 0] // 5
        if not self.config.heeds_codes:
            symbols = torch.zeros_like(symbols)
        if self.config.heeds_voice and labels is not None:
            voices = labels[:, None].expand_as(symbols)
        return WAVES[voices, symbols].flatten(1)[:, None]

    def convert(self, x, labels, generator=None):
        return self.decode(self.tokenize(x), labels)[..., : x.shape[2]]

    def reconstruct(self, x):
        return self.convert(x, None)

    def detokenize(self, codes):
        return self.decode(codes)

    def rates(self, codes, labels=None, lengths=None):
        raise NotImplementedError

    distortion = loss = draw = rates


def model_of(**changes):
    model = Perfect(Perfect.Config(**changes), SPEC).eval()
    model.classes = tuple(VOICES)
    return model


def figures(model, data, measure, **options):
    return evaluate(model, data, measures=[measure], **options)


def test_codes_that_are_the_symbols_tell_these_and_no_speaker(data):
    found = figures(model_of(), data, "probes")
    # The sounds of a sequence have the same codes in both voices: one of the two is taken for the other.
    assert found["probe_speaker_codes"] == 0.5
    assert found["probe_speaker_sound"] == 1
    assert found["probe_symbol_codes"] == 1
    assert found["probe_symbol_commonest"] == 1
    assert found["probe_symbol_sound"] == 1
    assert found["probe_content_codes"] == 1
    assert found["probe_content_sound"] > 0.8
    (note,) = (f.note for f in found.figures if f.id == "probe_speaker_codes")
    assert note.startswith("chance 0.500; 20 sounds; ")


def test_codes_that_tell_the_speaker_are_found_out(data):
    found = figures(model_of(tells=True), data, "probes")
    assert found["probe_speaker_codes"] == 1
    assert found["probe_symbol_commonest"] == 1


def test_a_perfect_conversion(data):
    found = figures(model_of(), data, "conversion")
    for names in zip(*((f.id, f.name) for f in found.figures), strict=True):
        assert len(set(names)) == len(names)
    for id in ("", "_reconstruction"):
        assert found[f"conversion_target_rate{id}"] == 1
        assert found[f"conversion_kept_top1{id}"] == 1
        assert found[f"conversion_mel_cepstral_distance{id}"] == pytest.approx(0, abs=1e-3)
        assert found[f"conversion_pitch_distance{id}"] == pytest.approx(0, abs=1e-3)
    assert found["conversion_target_rate_real"] == 1
    assert found["conversion_target_rate_random"] > 0.9
    assert found["conversion_kept_top1_random"] < 0.5
    assert found["conversion_mel_cepstral_distance_random"] > 3
    assert found["conversion_pitch_distance_real"] == pytest.approx(12 * math.log2(260 / 110), abs=0.5)
    assert found["conversion_pitch_0"] == pytest.approx(110, rel=0.02)
    assert found["conversion_pitch_1"] == pytest.approx(260, rel=0.02)


def test_a_decoder_that_ignores_its_codes_has_the_voice_alone(data):
    found = figures(model_of(heeds_codes=False), data, "conversion")
    assert found["conversion_target_rate"] > 0.9
    assert found["conversion_kept_top1"] < 0.3
    assert found["conversion_kept_top1_reconstruction"] < 0.3


def test_a_decoder_that_ignores_the_speaker_has_the_content_alone(data):
    found = figures(model_of(tells=True, heeds_voice=False), data, "conversion")
    assert found["conversion_target_rate"] == 0
    assert found["conversion_target_rate_reconstruction"] == 1
    assert found["conversion_kept_top1_reconstruction"] == 1
    assert found["conversion_pitch_distance"] == found["conversion_pitch_distance_real"]


def test_what_cannot_be_measured_is_said(data):
    def left_out(data, measures, model=None, **options):
        (sentence,) = evaluate(model or model_of(), data, measures=measures, **options).left_out
        return sentence

    none = replace(data, spec=replace(SPEC, classes=0), classes=(), fingerprint="x")
    for name in ("probes", "conversion"):
        assert "no several classes" in left_out(none, [name])
        assert "evaluate another than train" in left_out(data, [name], split="train")
    one = replace(SPEC, classes=3)
    other = Perfect(Perfect.Config(), one).eval()
    assert "the speakers are others than the model's" in left_out(data, ["conversion"], other)
    with pytest.raises(UserError, match="expected a measure, got probe; did you mean probes"):
        evaluate(model_of(), data, measures=["probe"])


def test_as_many_clips_of_each_speaker_and_what_is_short(data):
    recordings = Recordings.of(data, "test", range(20))
    assert sorted(chosen_of(recordings)) == list(range(20))
    assert recordings.partners.tolist() == [1, 0] * 10
    alone = Recordings.of(data, "test", [0, 1, 2])
    assert alone.partners.tolist() == [1, 0, -1]
    assert sorted(chosen_of(alone)) == [0, 1]
    slower = replace(recordings, spec=replace(SPEC, rate=SYMBOL_SAMPLES))  # a symbol takes a second
    lengths = recordings.sounds.lengths.tolist()
    assert slower.short == list(range(20))
    slower = replace(recordings, spec=replace(SPEC, rate=SYMBOL_SAMPLES - 100))
    assert slower.short == [i for i in range(20) if lengths[i] == 3 * SYMBOL_SAMPLES]
    assert slower.only(slower.short).rows == slower.short


def test_a_rank_beyond_all_where_nothing_says_the_same():
    assert rank(np.array([2.0, 1.0]), "a", ["a", "b"]) == 2
    assert rank(np.array([2.0, 1.0]), "c", ["a", "b"]) == 3


def test_the_common_space_leaves_the_speakers_out():
    random = np.random.default_rng(0)
    contents, words = random.normal(size=(220, 3)), np.array([f"{i:03}" for i in range(220)])
    offsets = 10 * random.normal(size=(2, 12))
    mixing = np.linalg.qr(random.normal(size=(15, 15)))[0]

    def said(rows):
        """By both speakers: three directions say what, the twelve others are large and mean nothing."""
        noise = 2 * random.normal(size=(2 * len(rows), 12)) + np.repeat(offsets, len(rows), 0)
        x = np.concatenate([np.concatenate([contents[rows]] * 2), noise], 1) @ mixing
        return x, np.concatenate([words[rows]] * 2), np.repeat([0, 1], len(rows))

    x, groups, speakers = said(np.arange(200))
    space = CommonSpace.fit(x, groups, speakers)
    x, groups, speakers = said(np.arange(200, 220))

    def hits(places):
        apart = np.linalg.norm(places[:20, None] - places[20:], axis=2)
        return np.mean(apart.argmin(1) == np.arange(20))

    assert hits(x) < 0.3
    assert hits(space(x, speakers)) > 0.8
    assert CommonSpace.fit(x[:20], groups[:20], speakers[:20]) is None


def test_a_probe_is_a_linear_one():
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 2)) * [1, 100] + [0, 5]
    line = (x[:, 0] + (x[:, 1] - 5) / 100 > 0).astype(int)
    assert np.mean(linear_probe(x[:300], line[:300], x[300:]) == line[300:]) > 0.95
    checkered = ((x[:, 0] > 0) ^ (x[:, 1] > 5)).astype(int)
    assert np.mean(linear_probe(x[:300], checkered[:300], x[300:]) == checkered[300:]) < 0.7
    assert linear_probe(x[:3], np.array(["a"] * 3), x[:2]).tolist() == ["a", "a"]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("ㄊㄢ3/5", ("ㄊ", "ㄢ", "3")),
        ("ㄢ/3", ("", "ㄢ", "1")),
        ("ㄅㄚ1/3", ("ㄅ", "ㄚ", "5")),
        ("ㄓ4/3", ("ㄓ", "", "4")),
        ("ㄌㄧㄠ2/5", ("ㄌ", "ㄧㄠ", "2")),
    ],
)
def test_parts_of_syllables(name, parts):
    assert syllable_of(name) == parts
