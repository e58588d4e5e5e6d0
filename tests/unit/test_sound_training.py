"""Trainings on sounds: windows of recordings, drawn anew each time, and a resumed run is the run."""

import shutil
from dataclasses import replace

import pytest
import torch

from ancestral.batch import Batch
from ancestral.data import Dataset, SoundOptions, Sounds
from ancestral.models.autoregressive.wavenet import WaveNet
from ancestral.training import TrainingOptions, train
from ancestral.training.fabric import build_fabric
from ancestral.training.prepared import examples

SPEC = SoundOptions(length=16, levels=8).spec(classes=2)
OPTIONS = TrainingOptions(device="cpu", checkpoint_every=2, sample_every=0, evaluate_every=2)


def recordings(n, seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(5, 60, (n,), generator=generator)
    samples = torch.randint(8, (int(lengths.sum()), 1), generator=generator, dtype=torch.uint8)
    return Sounds(samples, lengths, torch.arange(n) % 2, silence=4)


@pytest.fixture
def data():
    parts = {name: recordings(n, n) for name, n in (("train", 9), ("validation", 3), ("test", 2))}
    return Dataset(source="mine", spec=SPEC, classes=("a", "b"), **parts)


def test_a_resumed_training_on_sounds_ends_with_the_same_weights(data, tmp_path):
    def trained():
        stages = {"training": {"steps": 4, "batch_size": 10, "compile": False}}
        return train(
            WaveNet, data=data, out=tmp_path, config=WaveNet.Config.tiny(), stages=stages, options=OPTIONS
        )

    weights = trained().path / "model" / "model.safetensors"
    expected = weights.read_bytes()
    shutil.rmtree(tmp_path / "model")
    shutil.rmtree(tmp_path / "checkpoints" / "training" / "step-00000004")
    trained()
    assert weights.read_bytes() == expected


def test_a_stage_sees_windows_of_the_length_that_the_model_is_built_for(data, tmp_path):
    model = WaveNet(WaveNet.Config.tiny(), SPEC)
    fabric, stage = build_fabric(OPTIONS), model.stages()[0]
    for got, split in zip(
        examples(tmp_path, stage, model, data, fabric), (data.train, data.validation), strict=True
    ):
        assert len(got) == int(((split.lengths + 15) // 16).sum())
        assert got[:].x.shape[1:] == SPEC.shape
    # What a stage prepares is made of the windows at their places, and knows how long each is.
    stage = replace(
        stage, prepare=lambda batch: Batch(batch.x[..., ::4], batch.labels, lengths=batch.lengths)
    )
    for got, split in zip(
        examples(tmp_path, stage, model, data, fabric), (data.train, data.validation), strict=True
    ):
        windows = split.crops(16)[:]
        assert torch.equal(got.x, windows.x[..., ::4])
        assert torch.equal(got.lengths, windows.lengths)


def test_a_data_set_of_sounds_says_how_long_they_are(data):
    assert repr(data) == (
        "Dataset('mine': sound (1, 16) at 8,000 Hz, mu-law, 8 levels, 2 classes; "
        f"9 train ({data.train.total / 8000 / 60:.1f} min), 3 validation (0.0 min), 2 test (0.0 min))"
    )
    assert data.describe()["sizes"] == {"train": 9, "validation": 3, "test": 2}
    labels = data.test.labels.flip(0)
    other = Sounds(data.test.samples, data.test.lengths, labels, silence=4)
    assert replace(data, test=other, fingerprint="").fingerprint != data.fingerprint
    assert replace(data, fingerprint="").fingerprint == data.fingerprint
