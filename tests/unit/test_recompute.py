"""Activations that are computed twice: the same weights and less memory, whatever else a step does."""

import copy

import pytest
import torch
from safetensors.torch import load_file

from ancestral.batch import Batch
from ancestral.errors import UserError
from ancestral.model import repeated_blocks
from ancestral.models.autoregressive.gated_pixelcnn import GatedPixelCNN
from ancestral.models.autoregressive.pixelcnn import PixelCNN
from ancestral.models.autoregressive.pixelcnnpp import PixelCNNpp
from ancestral.models.autoregressive.pixelrnn import PixelRNN
from ancestral.models.autoregressive.pixelsnail import PixelSNAIL
from ancestral.models.autoregressive.transformer import Transformer
from ancestral.models.autoregressive.wavenet import WaveNet
from ancestral.recipe import Optimization
from ancestral.spec import Spec
from ancestral.stages import Progress
from ancestral.training import TrainingOptions, train
from ancestral.training.recompute import recomputed
from ancestral.training.work import PhaseLoss

MODELS = (GatedPixelCNN, PixelCNN, PixelRNN, PixelCNNpp, PixelSNAIL, WaveNet, Transformer)
MEMORY = {
    GatedPixelCNN: GatedPixelCNN.Config(width=16, layers=6, head=16, dropout=0.1),
    PixelCNN: PixelCNN.Config(hidden=16, layers=6, head=16, dropout=0.1),
    PixelRNN: PixelRNN.Config(hidden=4, layers=4, head=8, dropout=0.1),
    PixelCNNpp: PixelCNNpp.Config(
        width=16, blocks=3, levels=2, likelihood="categorical", dropout=0.1, condition_width=8
    ),
    PixelSNAIL: PixelSNAIL.Config(
        width=16, blocks=2, residual_blocks=4, residual_width=32, value=8, key=8, dropout=0.1,
        output_blocks=2, likelihood="categorical", condition_width=8,
    ),
    WaveNet: WaveNet.Config(width=16, gate_width=16, skip_width=16, layers=4, cycles=2, dropout=0.1),
    Transformer: Transformer.Config(width=16, layers=6, heads=2, dropout=0.1),
}  # fmt: skip
SPEC = Spec(
    shape=(1, 8, 8),
    levels=16,
    classes=3,
    domain="codes",
    contexts=(Spec(shape=(1, 4, 4), levels=16, domain="codes"),),
)


def built(cls):
    torch.manual_seed(0)
    return cls(MEMORY[cls], SPEC).double().train()


def batch():
    generator = torch.Generator().manual_seed(1)
    x, context = (torch.randint(16, (4, *shape), generator=generator) for shape in ((1, 8, 8), (1, 4, 4)))
    return Batch(x, torch.tensor([0, 1, 2, 0]), (context,))


def loss_of(model, seed=2):
    torch.manual_seed(seed)  # of dropout
    return model.loss(batch(), "training", Progress.at(0, 10)).total


def kept_bytes(model):
    """Memory of what the forward pass saves for the backward pass, weights left out, each storage once."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    storages = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage  # kept, so that no other one takes its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss_of(model)
    return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.parametrize("cls", MODELS)
def test_the_loss_and_every_gradient_are_the_same_bits(cls):
    model = built(cls)
    plain = loss_of(model)
    expected = torch.autograd.grad(plain, list(model.parameters()), allow_unused=True)
    names = model.state_dict().keys()
    with recomputed(repeated_blocks(model, [model])):
        assert model.state_dict().keys() == names
        again = loss_of(model)
        found = torch.autograd.grad(again, list(model.parameters()), allow_unused=True)
    assert torch.equal(plain, again)
    assert sum(gradient is not None for gradient in expected) > 10
    for one, other in zip(expected, found, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)
    assert not any("forward" in vars(module) for module in model.modules()), "the blocks are as they were"


@pytest.mark.parametrize("cls", MODELS)
def test_less_is_kept_for_the_backward_pass(cls):
    model = built(cls)
    before = kept_bytes(model)
    with recomputed(repeated_blocks(model, [model])):
        within = kept_bytes(model)
    # The 10 blocks of 16 channels keep their inputs; what they keep without is at least three times that.
    assert within < 0.6 * before


def test_memory_grows_with_the_blocks_by_their_inputs_alone():
    """Of each residual block more, one map of ``width`` channels is kept in place of 21 of them."""
    kept = {}
    for blocks in (2, 4):
        torch.manual_seed(0)
        config = PixelSNAIL.Config(
            width=16, blocks=1, residual_blocks=blocks, residual_width=64, attention_every=0,
            likelihood="categorical", context_blocks=0, class_conditional=False, weight_norm=False,
        )  # fmt: skip
        model = PixelSNAIL(config, Spec(shape=(1, 8, 8), levels=16)).train()
        data = Batch(torch.zeros(4, 1, 8, 8, dtype=torch.long))

        def saved(model=model, data=data):
            sizes = {}

            def keep(tensor):
                sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                loss = model.loss(data, "training", Progress.at(0, 1)).total  # alive while it is counted
                return loss, sum(storage.nbytes() for storage in sizes.values())

        with recomputed(repeated_blocks(model, [model])):
            kept[blocks] = saved()[1]
    assert kept[4] - kept[2] == 2 * 4 * 16 * 8 * 8 * 4  # blocks, examples, channels, places, bytes


def test_streams_and_evaluation_are_as_they_were():
    model = built(PixelSNAIL).eval()
    x = batch()
    with torch.no_grad():
        expected = model.log_likelihood(x)
    drawn = model.sample(2, contexts=[x.contexts[0][:2]], generator=torch.Generator().manual_seed(3))
    with recomputed(repeated_blocks(model, [model])):
        with torch.no_grad():
            assert torch.equal(model.log_likelihood(x), expected)
        again = model.sample(2, contexts=[x.contexts[0][:2]], generator=torch.Generator().manual_seed(3))
    assert torch.equal(drawn, again)


def test_a_compiled_step_recomputes_too():
    """The gradients of aot_eager, which is all of torch.compile but the generated code, are those without."""
    model = PixelSNAIL(PixelSNAIL.Config.tiny(), SPEC).double().train()  # weight norm, no dropout
    step, data = PhaseLoss(model, Optimization(steps=10)), batch().tensors()

    def gradients(module):
        total, _ = module(data, "training", torch.tensor(0))
        return total, torch.autograd.grad(total, list(model.parameters()), allow_unused=True)

    plain, expected = gradients(step)
    torch._dynamo.reset()
    with recomputed(repeated_blocks(model, [model])):
        again, found = gradients(torch.compile(step, dynamic=False, backend="aot_eager"))
    torch.testing.assert_close(again, plain)
    torch.testing.assert_close(found, expected)


def test_a_prior_s_blocks_are_those_of_its_own_model(tmp_path):
    """A tokenizer's stage has none; its prior's stage has the blocks of the prior."""
    options = TrainingOptions(device="cpu", checkpoint_every=0, evaluate_every=0, sample_every=0)
    config = {
        "quantizer": {"codebook_size": 8, "dim": 4}, "stride": 2, "width": 8, "blocks": 1,
        "residual_width": 4, "components": 2, "prior": {"width": 8, "layers": 2, "head": 8, "dropout": 0.2},
    }  # fmt: skip
    few = {"steps": 3, "batch_size": 16, "warmup": 0}

    def run(name, **changes):
        stages = {"tokenizer": few, "prior": few | changes}
        out = tmp_path / name
        train("vqvae", data="digits", out=out, config=config, stages=stages, options=options)
        return load_file(out / "model" / "model.safetensors")

    kept, again = run("kept"), run("again", recompute=True)
    assert kept.keys() == again.keys()
    assert all(torch.equal(kept[name], again[name]) for name in kept)
    parts, again = run("parts", accumulate=2), run("again-in-parts", recompute=True, accumulate=2)
    assert all(torch.equal(parts[name], again[name]) for name in parts)
    stages = {"tokenizer": few | {"recompute": True}, "prior": few}
    with pytest.raises(UserError, match=r"got tokenizer of VQVAE, without; leave --tokenizer\.recompute out"):
        train("vqvae", data="digits", out=tmp_path / "none", config=config, stages=stages, options=options)


def test_blocks_are_the_outer_ones_each_once_and_inside_the_modules_alone():
    model = built(PixelSNAIL)
    found = repeated_blocks(model, [model])
    assert len(set(found)) == len(found)
    inner = {m for block in found for m in block.modules() if m is not block}
    assert not inner & set(found)
    assert set(repeated_blocks(model, [model.output_stack])) == set(model.output_stack)
    assert repeated_blocks(copy.deepcopy(model), [model]) == ()
