"""What is wrong with a call from Python is said in one line, before anything is computed."""

from dataclasses import replace

import pytest
import torch

import ancestral
from ancestral.batch import Batch
from ancestral.errors import UserError
from ancestral.models.autoregressive.pixelcnn import PixelCNN
from ancestral.models.latent.vae import VAE
from ancestral.models.latent.vqvae import VQVAE
from ancestral.spec import Spec
from ancestral.taxonomy import model_class

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
        "expected temperature above 0, got -1; raise temperature",
    ),
    "no temperature": (
        lambda m: m["PixelCNN"].sample(1, temperature=0),
        "expected temperature above 0, got 0; raise temperature",
    ),
    "an infinite temperature": (lambda m: m["VAE"].sample(1, temperature=float("inf")), "above 0, got inf"),
    "an option that the model does not take": (
        lambda m: m["VAE"].sample(1, top_k=3),
        "expected no top-k, got one: VAE takes temperature; leave it out",
    ),
    "truncation of a prior": (
        lambda m: m["VQVAE"].sample(1, truncation=0.5),
        "expected no truncation, got one: VQVAE takes temperature, top-k, top-p; leave it out",
    ),
    "the 0 likeliest levels": (
        lambda m: m["PixelCNN"].sample(1, top_k=0),
        "expected top_k of at least 1, got 0; raise top_k",
    ),
    "a probability above 1": (
        lambda m: m["PixelCNN"].complete(X, X > 0, top_p=1.5),
        r"expected top_p in \(0, 1\], got 1\.5; choose a value in that range",
    ),
    "contexts of a model without": (
        lambda m: m["VQVAE"].sample(2, contexts=(CODES,)),
        "expected 0 contexts, got 1; give the model what it was trained on",
    ),
    "data with contexts for a model that takes none": (
        lambda m: VAE(VAE.Config.tiny(), replace(SPEC, contexts=(SPEC,))),
        "expected data without contexts for VAE, got 1; use an autoregressive model",
    ),
    "importance samples of an exact likelihood": (
        lambda m: m["PixelCNN"].log_likelihood(Batch(X), 5),
        "from, got PixelCNN, whose likelihood is exact; leave --importance-samples out",
    ),
    "no importance samples": (
        lambda m: m["VAE"].log_likelihood(Batch(X), 0),
        "expected at least 1 importance sample, got 0; try 50",
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
        lambda m: m["PixelCNN"].log_likelihood(Batch(X.view(2, 1, 2, 8))),
        r"shape \(1, 4, 4\), got \(1, 2, 8\)",
    ),
    "no labels": (
        lambda m: m["PixelCNN"].conditionals(X),
        "expected labels for a class-conditional model, got none",
    ),
    "a context of four dimensions": (
        lambda m: PixelCNN(
            PixelCNN.Config.tiny(),
            Spec(shape=(1, 4, 4), contexts=(Spec(shape=(1, 2, 2, 2), domain="codes"),)),
        ),
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
        "expected a source of data, got Tensor",
    ),
    "a size of one number": (
        lambda m: ancestral.ImageOptions(size=32),
        "expected a size of two positive numbers, got 32; give height and width",
    ),
    "a preparation as a mapping": (
        lambda m: ancestral.evaluate(m["VAE"], "digits", preparation={"size": (4, 4)}),
        "expected a preparation of the data, got dict; write it as ImageOptions",
    ),
    "a class in place of its options": (
        lambda m: ancestral.train("vae", data="digits", out="out", config=VAE.Config),
        "expected model as VAE.Config, got the class VAE.Config; write VAE.Config",
    ),
    "options of another model": (
        lambda m: ancestral.train("vae", data="digits", out="out", config=PixelCNN.Config()),
        r"expected model as VAE.Config, got PixelCNN.Config; write VAE.Config\(...\), or a mapping",
    ),
    "options of training as a number": (
        lambda m: ancestral.train("vae", data="digits", out="out", options=3),
        "expected options as TrainingOptions, got int",
    ),
    "a model misspelled": (
        lambda m: model_class("vqave"),
        "expected the name of a model or module:Class, got 'vqave'; did you mean vqvae",
    ),
    "a module that is not there": (
        lambda m: model_class("nowhere.at_all:Model"),
        "expected a module that can be imported, got nowhere.at_all; install its package",
    ),
    "a class that is not there": (
        lambda m: model_class("ancestral.spec:Spek"),
        "expected a class Spek in ancestral.spec, got none; check the name",
    ),
    "a class that is no model": (
        lambda m: model_class("ancestral.spec:Spec"),
        "expected a subclass of ancestral.Model, got ancestral.spec:Spec; check the name",
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
