"""The certificate catches planted faults of every kind, says where, and passes networks that are sound."""

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import conv2d, dropout, pad
from torch.nn.utils.parametrizations import spectral_norm

from ancestral.errors import UserError
from ancestral.evaluation.certificate import certify
from ancestral.models.autoregressive.gated_pixelcnn import GatedPixelCNN
from ancestral.models.autoregressive.pixelcnn import PixelCNN
from ancestral.nn.causal import RasterConv2d, channel_groups
from ancestral.spec import Spec

GREY = Spec(shape=(1, 5, 6), levels=4)
RGB = Spec(shape=(3, 3, 4), levels=4)


class Stack(nn.Module):
    """Somebody's own single stack of masked convolutions, with room for faults."""

    def __init__(self, channels=1, width=12, kernel=3, layers=3, norm=None, break_mask=False):
        super().__init__()
        inputs, group = torch.arange(channels), channel_groups(width, channels)
        if (
            break_mask
        ):  # the usual code: what a width that the channels do not divide leaves over is masked by nobody
            group = torch.arange(width) // (width // channels)
        half = kernel // 2
        self.first = RasterConv2d(inputs, group, up=half, left=half, right=half, mask="A")
        self.layers = nn.ModuleList(
            RasterConv2d(group, group, up=half, left=half, right=half) for _ in range(layers)
        )
        self.norm = norm(width) if norm else nn.Identity()
        self.last = RasterConv2d(group % channels, torch.arange(channels).repeat_interleave(2))
        self.channels = channels

    def forward(self, x):
        h = self.first(x.double() / 2 - 1)
        for layer in self.layers:
            h = h + layer(self.norm(h).tanh())
        return self.last(h).unflatten(1, (self.channels, 2)).movedim(2, -1)


def full_past(x):
    """Sound: each output is a weighted sum of all values before it."""
    flat = x.double().movedim(1, -1).flatten(1)
    weights = torch.linspace(1, 2, flat.shape[1], dtype=torch.float64)
    return pad((flat * weights).cumsum(1), (1, -1)).view(len(x), *x.shape[2:], x.shape[1]).movedim(-1, 1)


@pytest.mark.parametrize("spec", [GREY, RGB, Spec(shape=(1, 9), levels=3), Spec(shape=(2, 5), levels=3)])
def test_a_sound_function_passes(spec):
    certificate = certify(full_past, spec)
    assert certificate.ok
    assert "no output sees itself or the future" in str(certificate)


def test_a_blind_spot_is_found_where_it_is():
    certificate = certify(Stack(layers=1), GREY)
    assert certificate.causal
    assert not certificate.ok
    # Each 3x3 kernel goes up to the right by one column, and never to the right alone.
    blind = {tuple(pair) for pair in certificate.blind.tolist()}
    at = lambda row, column: row * 6 + column  # noqa: E731
    assert (at(2, 2), at(0, 4)) not in blind
    assert (at(2, 2), at(1, 4)) in blind
    assert (at(4, 4), at(0, 0)) in blind  # too far
    assert "output (0, " in str(certificate)
    deep = certify(Stack(layers=8), GREY)  # near enough, and still blind to what is right of the diagonal
    blind = {tuple(pair) for pair in deep.blind.tolist()}
    assert (at(4, 4), at(0, 0)) not in blind
    assert (at(2, 1), at(1, 5)) in blind
    two_stacks = GatedPixelCNN(GatedPixelCNN.Config(width=8, layers=8, head=8), GREY)
    assert certify(two_stacks, declared=torch.ones(30, 30, dtype=torch.bool).tril(-1)).ok


def test_a_first_layer_that_sees_itself_is_a_leak():
    class Leaking(Stack):
        def forward(self, x):
            return super().forward(x) + 1e-6 * x.double().unsqueeze(-1)

    certificate = certify(Leaking(), GREY)
    assert sorted(certificate.leaks.tolist()) == [[i, i] for i in range(30)]
    assert "LEAK: output (0, 2, 3) sees input (0, 2, 3), and 29 more" in str(certificate)


@pytest.mark.parametrize("spec", [GREY, RGB])
def test_a_shift_that_is_off_by_one_is_a_leak(spec):
    """An attention mask or a shift that ends one too late."""

    def off(x):
        flat = x.double().movedim(1, -1).flatten(1)
        late = pad(flat, (0, 1))[:, 1:]
        return late.view(len(x), *x.shape[2:], x.shape[1]).movedim(-1, 1)

    certificate = certify(off, spec)
    assert certificate.leaks.tolist() == [[i, i + 1] for i in range(spec.dims - 1)]


def test_a_fully_masked_row_of_attention_is_a_leak():
    """A softmax over nothing but minus infinities (or -1e10) is uniform: the first position sees
    everything."""

    def attention(x):
        values = x.double().flatten(1)
        size = values.shape[1]
        scores = torch.zeros(size, size, dtype=torch.float64).masked_fill(
            torch.ones(size, size).triu().bool(), -1e10
        )
        return (values @ scores.softmax(-1).T).view(x.shape)

    certificate = certify(attention, GREY)
    assert {i for i, _ in certificate.leaks.tolist()} == {0}
    assert len(certificate.leaks) == 30


def test_batch_normalisation_leaks_across_the_batch_in_training():
    certificate = certify(Stack(norm=nn.BatchNorm2d), GREY)
    assert not certificate.causal
    assert certificate.across_batch == {"evaluation": False, "training": True}
    assert certificate.mode_matters
    assert "LEAK ACROSS THE BATCH in training mode" in str(certificate)
    assert "MODE: training mode gives other outputs" in str(certificate)
    assert not len(certificate.leaks), "statistics of the batch are no leak of the past"


def test_a_leak_across_the_batch_of_a_plain_function_is_found():
    certificate = certify(lambda x: full_past(x) + full_past(x).mean(0), GREY)
    assert certificate.across_batch == {"evaluation": True}
    assert not certificate.ok


def test_another_function_in_training_is_found():
    class Louder(Stack):
        def forward(self, x):
            return super().forward(x) * (1.1 if self.training else 1.0)

    certificate = certify(Louder(), GREY)
    assert certificate.mode_matters
    assert not any(certificate.across_batch.values())
    assert not certify(Stack(), GREY).mode_matters


class Attention(nn.Module):
    """Causal attention as PyTorch has it, with dropout in a number and a mask among the parameters."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(1, 8)
        self.place = nn.Parameter(torch.randn(9, 8))
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.3, batch_first=True)
        self.mask = nn.Parameter(torch.full((9, 9), -torch.inf).triu(1), requires_grad=False)

    def forward(self, x):
        h = self.embed(pad(x.double().movedim(1, 2), (0, 0, 1, -1))) + self.place
        return (
            self.attention(h, h, h, attn_mask=self.mask, need_weights=False)[0]
            .movedim(1, 2)
            .unsqueeze(1)
            .movedim(2, -1)
        )


def fourier(x):
    """Sound: a causal convolution as a product of Fourier transforms, padded so that nothing wraps around."""
    flat = pad(x.double().flatten(1), (1, -1))
    size = 2 * flat.shape[1]
    weights = torch.linspace(1, 2, flat.shape[1], dtype=torch.float64)
    product = torch.fft.rfft(flat, size) * torch.fft.rfft(weights, size)
    return torch.fft.irfft(product, size)[:, : flat.shape[1]].view(x.shape)


def test_rounding_is_no_dependence():
    """Compared bit for bit, each output of a Fourier transform saw every input."""
    certificate = certify(fourier, GREY)
    assert certificate.ok, str(certificate)
    x = torch.randint(4, (1, *GREY.shape), generator=torch.Generator().manual_seed(0))
    later = x.clone()
    later[..., -1, -2] = (later[..., -1, -2] + 1) % 4
    assert not torch.equal(fourier(x)[..., :4, :], fourier(later)[..., :4, :]), "the transform rounds"


class KeptOn(nn.Dropout):
    """Dropout for samples of a posterior, as in Gal & Ghahramani, 2016."""

    def train(self, mode=True):
        return super().train(True)


class Noisy(Stack):
    def forward(self, x):
        out = super().forward(x)
        return out + 0.1 * torch.randn_like(out)


@pytest.mark.parametrize(
    "network",
    [Noisy(), Stack(norm=lambda width: KeptOn(0.5)), lambda x: full_past(x) + torch.rand(30).view(5, 6)],
    ids=["noise", "dropout", "function"],
)
def test_what_is_random_is_no_likelihood(network):
    certificate = certify(network, GREY, trials=2)
    assert certificate.random
    assert not certificate.causal
    assert "RANDOM: outputs change from pass to pass" in str(certificate)
    assert not len(certificate.leaks), "each pass meets the same noise"


def test_dropout_without_a_module_is_said_and_is_no_fault():
    class Functional(Stack):
        def forward(self, x):
            return dropout(super().forward(x), 0.5, self.training)

    certificate = certify(Functional(), GREY, trials=2)
    assert (certificate.random, certificate.random_in_training) == (False, True)
    assert certificate.causal
    assert "training mode is random (dropout?), and was not compared" in str(certificate)


@pytest.mark.parametrize("norm", [None, nn.BatchNorm2d])
def test_a_leak_of_training_mode_alone_is_named_so(norm):
    class Careless(Stack):
        def forward(self, x):
            return super().forward(x) + (x.double().unsqueeze(-1) if self.training else 0)

    certificate = certify(Careless(norm=norm), GREY, trials=2)
    assert sorted(certificate.leaks.tolist()) == [[i, i] for i in range(30)]
    lines = str(certificate).splitlines()
    assert "LEAK in training mode: output (0, 2, 3) sees input (0, 2, 3), and 29 more" in lines
    assert not any(line.startswith("LEAK:") for line in lines)
    assert certificate.across_batch["training"] == (norm is not None)


def test_statistics_of_ones_own_over_the_batch_are_no_leak_of_the_past():
    class Centered(Stack):
        def forward(self, x):
            out = super().forward(x)
            return out - out.mean((0, 2, 3), keepdim=True) if self.training else out

    certificate = certify(Centered(), GREY, trials=2)
    assert not certificate.causal
    assert not len(certificate.leaks)
    assert (
        "LEAK ACROSS THE BATCH in training mode, "
        "where what an output sees of its own example cannot be told" in str(certificate)
    )


def test_power_iterations_of_training_are_not_taken_for_noise():
    """Each pass in training mode moves the vectors by which spectral normalization divides."""
    network = Stack()
    spectral_norm(network.layers[0])
    certificate = certify(network, GREY, trials=2)
    assert not certificate.random_in_training
    assert not len(certificate.leaks)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_a_module_that_cannot_be_copied_is_said():
    module = nn.Sequential(nn.Flatten(), torch.nn.utils.weight_norm(nn.Linear(30, 30)))
    message = (
        "expected a module that can be copied, got Sequential: .*; torch.nn.utils.weight_norm cannot: "
        "use torch.nn.utils.parametrizations.weight_norm"
    )
    with pytest.raises(UserError, match=message):
        certify(module, GREY)


def test_attention_of_pytorch_passes():
    certificate = certify(Attention(), Spec(shape=(1, 9), levels=3))
    assert certificate.ok, str(certificate)


def test_nan_is_said():
    def masked(x):  # the softmax of a row that is masked as a whole
        size = x.shape[-1]
        weights = torch.full((size, size), -torch.inf, dtype=torch.float64).triu().softmax(-1)
        return x.double() @ weights.T

    with pytest.raises(UserError, match="expected numbers from the network, got NaN or infinity at output 0"):
        certify(masked, Spec(shape=(1, 9), levels=3))


def test_dropout_is_no_dependence_on_the_mode():
    certificate = certify(Stack(norm=lambda width: nn.Dropout(0.5), layers=5), GREY)
    assert certificate.causal


@pytest.mark.parametrize("width", [12, 8, 7])
def test_channel_order_holds_for_any_width(width):
    assert certify(Stack(channels=3, width=width), RGB).causal


def test_a_mask_that_is_broken_for_some_widths_is_a_leak():
    assert certify(Stack(channels=3, width=9, break_mask=True), RGB).causal
    certificate = certify(Stack(channels=3, width=8, break_mask=True), RGB)
    leaks = certificate.leaks
    assert len(leaks)
    # The leak is within positions: a channel sees itself or a later one.
    assert bool((leaks[:, 0] // 3 == leaks[:, 1] // 3).any())


def test_a_tiny_dependence_is_found():
    def whisper(x):
        return full_past(x) + 1e-9 * x.double()

    assert not certify(whisper, GREY).causal


def test_dead_units_are_not_blind_spots():
    class Dying(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(1, 1, 2, 3))

        def forward(self, x):
            kernel = self.weight * torch.tensor([[1.0, 1, 1], [1, 0, 0]], dtype=torch.float64)
            return conv2d(pad(x.double() - 1.5, (1, 1, 1, 0)), kernel).relu()

    declared = torch.zeros(30, 30, dtype=torch.bool)
    for row in range(5):
        for column in range(6):
            for up, right in ((1, -1), (1, 0), (1, 1), (0, -1)):
                if row - up >= 0 and 0 <= column + right < 6:
                    declared[row * 6 + column, (row - up) * 6 + column + right] = True
    assert certify(Dying(), GREY, declared=declared, trials=16).ok


def test_more_than_declared_is_said():
    model = PixelCNN(PixelCNN.Config.tiny(), GREY)
    nothing = torch.zeros(30, 30, dtype=torch.bool)
    certificate = certify(model, declared=nothing)
    assert certificate.causal
    assert not certificate.ok
    assert "MORE THAN DECLARED: output" in str(certificate)


def test_the_picture_shows_each_finding(tmp_path):
    def faulty(x):
        out = full_past(x)
        out[:, :, 2, 3] = x[:, :, 2, 4].double()  # sees the future and none of the past
        return out

    certificate = certify(faulty, GREY)
    image = Image.open(certificate.picture(tmp_path / "faulty.png")).convert("RGB")
    scale = image.width // 6
    color = lambda row, column: image.getpixel((column * scale + scale // 2, row * scale + scale // 2))  # noqa: E731
    assert color(2, 3) == (255, 255, 255)
    assert color(2, 4) == (215, 60, 55)
    assert color(1, 1) == (70, 110, 210)
    assert color(4, 4) == (40, 40, 40)
    image = Image.open(certificate.picture(tmp_path / "sound.png", output=(0, 4, 0))).convert("RGB")
    assert color(3, 3) == (76, 160, 90)
    with pytest.raises(UserError, match=r"expected a place within \(1, 5, 6\), got \(0, 5, 0\)"):
        certificate.picture(tmp_path / "out.png", output=(0, 5, 0))


def test_what_is_not_declared_is_said_and_drawn(tmp_path):
    certificate = certify(PixelCNN(PixelCNN.Config.tiny(), GREY), trials=1)
    assert "declares less than the whole past of 435 pairs: output (0, " in str(certificate)
    image = Image.open(certificate.picture(tmp_path / "pixelcnn.png", output=(0, 1, 5))).convert("RGB")
    scale = image.width // 6
    assert image.getpixel((scale // 2, scale // 2)) == (120, 120, 120)


def test_the_callers_random_numbers_are_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    certify(full_past, GREY, trials=1)
    assert torch.equal(torch.rand(3), expected)
    model = PixelCNN(PixelCNN.Config.tiny(), GREY)
    torch.manual_seed(5)
    certify(model, trials=1)
    assert torch.equal(torch.rand(3), expected)


def test_bad_subjects_are_one_line_errors():
    with pytest.raises(UserError, match="expected a spec beside a network of your own"):
        certify(full_past)
    model = PixelCNN(PixelCNN.Config.tiny(), GREY)
    with pytest.raises(UserError, match="expected no spec beside a model of the library, got Spec"):
        certify(model, RGB)
    with pytest.raises(UserError, match="expected trials of at least 1, got 0"):
        certify(full_past, GREY, trials=0)
    with pytest.raises(UserError, match=r"expected outputs of shape \(64, 3, 3, 4, 'P'\), got \(64, 7\)"):
        certify(lambda x: torch.zeros(len(x), 7), RGB)
    with pytest.raises(UserError, match="expected a tensor from the network, got str"):
        certify(lambda x: "no", RGB)
    with pytest.raises(UserError, match=r"expected a declaration of shape \(36, 36\), got \(3, 3\)"):
        certify(full_past, RGB, declared=torch.ones(3, 3, dtype=torch.bool))
