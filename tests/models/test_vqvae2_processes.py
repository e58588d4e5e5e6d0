"""VQ-VAE-2 in two processes, and with activations computed twice: trained as by one that keeps them."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_vqvae2_training import STAGES, TINY, tiny

from ancestral.training import TrainingOptions
from ancestral.training.loop import Trainer

# Without what chance decides for each process apart.
CERTAIN = TINY | {"level_dropout": 0.0}
PRIOR = {"width": 8, "layers": 2, "head": 8, "dropout": 0.2}
OPTIONS = TrainingOptions(device="cpu", checkpoint_every=0, evaluate_every=0, sample_every=0)
FEW = {name: {"steps": 3, "batch_size": 16, "warmup": 1, "ema": 0.9} for name in STAGES}


def train_noting(out):
    """Train all stages; the weights that this process has after each one lie beside the run."""

    def noting(self, index, checkpoint):
        plain(self, index, checkpoint)
        state = {name: value.contiguous() for name, value in self.model.state_dict().items()}
        save_file(state, f"{out}-{self.stages[index].name}-{self.fabric.global_rank}.safetensors")

    plain, Trainer._run_stage = Trainer._run_stage, noting
    try:
        tiny(out, config=CERTAIN, stages=FEW, options=OPTIONS)
    finally:
        Trainer._run_stage = plain


@pytest.fixture(scope="module")
def found(tmp_path_factory, in_two_processes):
    """The weights after each stage, as each of two processes has them, and as one alone has them."""
    folder = tmp_path_factory.mktemp("processes")
    in_two_processes("train_noting", folder / "two")
    train_noting(folder / "one")
    return {path.stem: load_file(path) for path in folder.glob("*.safetensors")}


@pytest.mark.parametrize("stage", STAGES)
def test_both_processes_end_with_the_same_weights(found, stage):
    first, second = (found[f"two-{stage}-{rank}"] for rank in range(2))
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_codebooks_follow_the_whole_batch(found):
    """Those of all levels are as if one process had seen it.

    Halves are added in another order: 1e-7 of float32, which Adam's division by the size of a gradient
    enlarges over 3 steps.
    """
    one, two = (found[f"{name}-tokenizer-0"] for name in ("one", "two"))
    names = [name for name in one if name.startswith("quantizers.")]
    assert len({name.split(".")[1] for name in names}) == 3
    for name in names:
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=2e-4, msg=name)
    counts = [two[name] for name in names if name.endswith("counts")]
    assert len(counts) == 3
    # A running mean of how many codes a batch of 16 examples has, at 4, 16 and 64 places: half in a process.
    for count, places in zip(counts, (4, 16, 64), strict=True):
        assert float(count.sum()) == pytest.approx(16 * places, rel=0.05)


def test_a_level_s_prior_recomputes(tmp_path):
    config = CERTAIN | {"strides": [4, 2], "top_prior": PRIOR, "lower_prior": PRIOR}
    stages = {name: FEW[name] for name in ("tokenizer", "top", "bottom")}
    base = tmp_path / "base"
    tiny(base, config=config, stages=stages, options=OPTIONS, only=["tokenizer"])

    def trained(name, **changes):
        how = stages | {level: stages[level] | changes for level in ("top", "bottom")}
        run = tiny(tmp_path / name, config=config, stages=how, options=OPTIONS, start_from=base)
        return (run.path / "model" / "model.safetensors").read_bytes()

    assert trained("kept") == trained("again", recompute=True)
