"""What is wrong with a call from Python is said in one line, before anything is computed."""

import pytest
import torch

import ancestral
from ancestral.errors import UserError
from ancestral.model import Batch
from ancestral.models.autoregressive.pixelcnn import PixelCNN
from ancestral.models.latent.vae import VAE
from ancestral.models.latent.vqvae import VQVAE
from ancestral.spec import Spec

SPEC = Spec(shape=(1, 4, 4), levels=4, classes=3)
X = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
CODES = torch.zeros(2, 1, 2, 2, dtype=torch.int64)


@pytest.fixture(scope="module")
def models():
    return {cls.__name__: cls(cls.Config.tiny(), SPEC).eval() for cls in (PixelCNN, VAE, VQVAE)}


def another_model(model):
    """A model in the middle of another one's stream."""
    stream = model.stream(2, torch.tensor([0, 1]))
    stream.push(torch.tensor([0, 1]))
    stream.conditional()
    other = PixelCNN(PixelCNN.Config.tiny(), SPEC).eval()
    other.positions(torch.zeros(2, 8), None, None, stream._cursor)


MISTAKES = {
    "an example without its batch": (
        lambda m: m["VQVAE"].tokenize(X[0]),
        r"expected examples \(N, 1, 4, 4\), got one of them; add a dim",
    ),
    "examples of another size": (
        lambda m: m["VQVAE"].tokenize(X[..., 1:]),
        r"expected examples of shape \(1, 4, 4\), got \(1, 4, 3\)",
    ),
    "more levels": (
        lambda m: m["VQVAE"].reconstruct(X + 4),
        "expected values 0..3, got 4; use data with as many levels",
    ),
    "floats": (lambda m: m["VAE"].embed(X / 3), "expected integers 0..3 as values, got torch.float32"),
    "a list of lists": (
        lambda m: m["VAE"].reconstruct(X.tolist()),
        "expected a tensor of examples, got list; wrap it",
    ),
    "codes beyond the codebook": (
        lambda m: m["VQVAE"].detokenize((CODES + 4,)),
        "expected values 0..3, got 4 as codes",
    ),
    "codes of another shape": (
        lambda m: m["VQVAE"].detokenize((CODES[..., 1:],)),
        r"shape \(1, 2, 2\), got \(1, 2, 1\) as codes",
    ),
    "codes without a level": (
        lambda m: m["VQVAE"].detokenize(CODES),
        "expected a sequence of code maps, got Tensor",
    ),
    "codes of two levels": (
        lambda m: m["VQVAE"].detokenize((CODES, CODES)),
        r"expected 1 code map \(one for each level\), got 2",
    ),
    "latents of another size": (
        lambda m: m["VAE"].decode(torch.zeros(2, 5)),
        r"expected latents \(N, 2\), got \(2, 5\)",
    ),
    "labels in a list": (
        lambda m: m["PixelCNN"].sample(2, [0, 1]),
        "expected a tensor of labels, got list; wrap them",
    ),
    "labels as floats": (
        lambda m: m["VQVAE"].sample(2, torch.zeros(2)),
        "expected integers 0..2 as labels, got torch.float32",
    ),
    "fewer than no samples": (lambda m: m["PixelCNN"].sample(-1), "expected n of at least 1, got -1"),
    "no samples": (lambda m: m["VQVAE"].sample(0), "expected n of at least 1, got 0"),
    "no samples of z": (lambda m: m["VAE"].sample(0), "expected n of at least 1, got 0"),
    "a negative temperature": (
        lambda m: m["VAE"].sample(1, temperature=-1),
        "expected a temperature of 0 or more, got -1",
    ),
    "no temperature": (
        lambda m: m["PixelCNN"].sample(1, temperature=0),
        "expected a temperature above 0, got 0",
    ),
    "a number pushed": (
        lambda m: m["PixelCNN"].stream(1, torch.tensor([0])).push(3),
        "expected a tensor of 1 values, got int",
    ),
    "a batch for another stream": (
        lambda m: m["PixelCNN"].positions(
            torch.zeros(3, 8), None, None, m["PixelCNN"].stream(2, torch.tensor([0, 1]))._cursor
        ),
        "expected 2 examples in this stream, got 3; begin another stream",
    ),
    "images of another shape": (
        lambda m: m["PixelCNN"].log_prob(Batch(X.view(2, 1, 2, 8))),
        r"shape \(1, 4, 4\), got \(1, 2, 8\)",
    ),
    "no labels": (
        lambda m: m["PixelCNN"].conditionals(X),
        "expected labels for a class-conditional model, got none",
    ),
    "a context of four dimensions": (
        lambda m: PixelCNN(PixelCNN.Config.tiny(), Spec(shape=(1, 4, 4), context=Spec(shape=(1, 2, 2, 2)))),
        r"expected a context \(C, H, W\) or \(C, T\), got shape \(1, 2, 2, 2\)",
    ),
    "a stream of another model": (
        lambda m: another_model(m["PixelCNN"]),
        "expected the stream of this model, got another's",
    ),
    "a model that is None": (
        lambda m: ancestral.load(None),
        "expected the name of a model, got NoneType; give a run directory",
    ),
    "nothing to evaluate": (
        lambda m: ancestral.evaluate(None),
        "expected a model, a run or the name of one, got NoneType",
    ),
    "data as a tensor": (
        lambda m: ancestral.train("vae", data=X, out="out"),
        "expected the name of a source of data, got Tensor",
    ),
    "a shape in words": (
        lambda m: Spec(shape="28x28"),
        "expected a shape of integers, got '28x28'; write it as",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_a_user_error(models, mistake):
    call, message = MISTAKES[mistake]
    with pytest.raises(UserError, match=message) as raised:
        call(models)
    assert "\n" not in str(raised.value)
