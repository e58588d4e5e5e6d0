"""Inception-v3 as the Fréchet inception distance uses it (Heusel et al., 2017).

Distance: https://arxiv.org/abs/1706.08500, network: Szegedy et al. (2015), https://arxiv.org/abs/1512.00567.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d

from ancestral.errors import UserError
from ancestral.files import checksum
from ancestral.measures.imagenet import rgb

_SIDE = 299
"""Pixels to a side that every image is resized to."""
_STANDARD = "6726825d"
"""What the SHA-256 of the standard weights begins with; their file has it in its name."""
_SOURCE = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights"


class Inception(nn.Module):
    """Images to the 2048 features of the TensorFlow graph of 2015-12-05, those of which an FID is computed.

    ``Inception.load`` reads its weights from a file that you download once: nothing else may be called FID.
    A network made without it has random weights.

    It differs from the classification network: average pools do not count their padding, the last block takes
    a maximum instead, there are 1008 classes and no auxiliary ones. Modules are named as in the file. It is
    always in the mode of evaluation; gradients pass to images, its weights have none.

    Shapes: pixels ``(N, 3, H, W)`` or ``(N, 1, H, W)``, gray three times over, in 0..1, rounded to the 256
    levels that the graph was given; features ``(N, 2048)`` in float32.
    """

    name: str = "inception"
    dim: int = 2048
    weights_sha256: str = ""
    """Of the weight file; empty where the weights are random."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Convolution(3, 32, 3, stride=2, padding="valid")
        self.Conv2d_2a_3x3 = _Convolution(32, 32, 3, padding="valid")
        self.Conv2d_2b_3x3 = _Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = _Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = _Convolution(80, 192, 3, padding="valid")
        self.Mixed_5b = _A(192, pooled=32)
        self.Mixed_5c = _A(256, pooled=64)
        self.Mixed_5d = _A(288, pooled=64)
        self.Mixed_6a = _B(288)
        self.Mixed_6b = _C(768, narrow=128)
        self.Mixed_6c = _C(768, narrow=160)
        self.Mixed_6d = _C(768, narrow=160)
        self.Mixed_6e = _C(768, narrow=192)
        self.Mixed_7a = _D(768)
        self.Mixed_7b = _E(1280, pool=_average)
        self.Mixed_7c = _E(2048, pool=_maximum)
        self.fc = nn.Linear(2048, 1008)  # no feature passes through it: it is here to load all of the file
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """The network with the standard weights, ``pt_inception-2015-12-05-6726825d.pth``.

        They are the file of pytorch-fid, https://github.com/mseitzer/pytorch-fid/releases/tag/fid_weights,
        which torch-fidelity has as ``weights-inception-2015-12-05-6726825d.pth``.

        Raises:
            UserError: the file is missing or cannot be read, or is another one.
        """
        path = Path(path)
        found = checksum(path)
        if not found.startswith(_STANDARD):
            problem = (
                f"expected the standard weights of Inception, whose SHA-256 begins {_STANDARD}, got {found}"
            )
            remedy = f"nothing else may be called FID: take {_SOURCE}/pt_inception-2015-12-05-6726825d.pth"
            raise UserError(f"{problem} in {path}", remedy)
        with torch.device("meta"):  # no random weights are drawn: the caller's generator stays as it is
            network = cls()
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), assign=True)
        network.weights_sha256 = found
        return network.requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Features of images. Raises UserError: they are not what ``rgb`` expects."""
        x = 255 * rgb(pixels)
        x = (resized(x if x.requires_grad else x.round()) - 128) / 128  # rounded, there are no gradients
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(max_pool2d(x, 3, stride=2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(max_pool2d(x, 3, stride=2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean((2, 3)).float()

    def train(self, mode: bool = True) -> Self:
        """Stays in the mode of evaluation, whatever a parent module is put into."""
        return super().train(False)


def resized(x: Tensor) -> Tensor:
    """Images ``(N, C, H, W)`` at 299x299, as ``resize_bilinear`` of TensorFlow 1 gives them by default.

    Position i of the result looks at i H / 299 (align_corners=False, half_pixel_centers=False): the first
    pixel keeps its place, the last is repeated, and nothing is antialiased. Images that were resized to 299
    in another way have another FID (Parmar et al., 2022, https://arxiv.org/abs/2104.11222).
    """
    return _stretched(_stretched(x, 3), 2)


def _stretched(x: Tensor, axis: Literal[2, 3]) -> Tensor:
    n = x.shape[axis]
    scale = torch.tensor(n / _SIDE, dtype=torch.float32, device=x.device)  # the kernel reckons in 32 bits
    position = torch.arange(_SIDE, dtype=torch.float32, device=x.device) * scale
    lower = position.long()
    upper = (lower + 1).clamp_max(n - 1)
    share = position - lower
    before, after = x.index_select(axis, lower), x.index_select(axis, upper)
    return before + (after - before) * (share if axis == 3 else share[:, None])


class _Convolution(nn.Module):
    """Convolution, batch normalization, ReLU."""

    def __init__(
        self,
        inputs: int,
        width: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: Literal["same", "valid"] = "same",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, width, kernel, stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.bn(self.conv(x))
        return h.relu_()


def _average(x: Tensor) -> Tensor:
    return avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _maximum(x: Tensor) -> Tensor:
    return max_pool2d(x, 3, stride=1, padding=1)


class _A(nn.Module):
    """35x35 positions: two 3x3 convolutions in the place of one 5x5 (figure 5 of the paper)."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = _Convolution(inputs, 64, 1)
        self.branch5x5_1 = _Convolution(inputs, 48, 1)
        self.branch5x5_2 = _Convolution(48, 64, 5)
        self.branch3x3dbl_1 = _Convolution(inputs, 64, 1)
        self.branch3x3dbl_2 = _Convolution(64, 96, 3)
        self.branch3x3dbl_3 = _Convolution(96, 96, 3)
        self.branch_pool = _Convolution(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(_average(x))], 1)


class _B(nn.Module):
    """35x35 to 17x17 positions (figure 10)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = _Convolution(inputs, 384, 3, stride=2, padding="valid")
        self.branch3x3dbl_1 = _Convolution(inputs, 64, 1)
        self.branch3x3dbl_2 = _Convolution(64, 96, 3)
        self.branch3x3dbl_3 = _Convolution(96, 96, 3, stride=2, padding="valid")

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, max_pool2d(x, 3, stride=2)], 1)


class _C(nn.Module):
    """17x17 positions: 7x7 convolutions as 1x7 and 7x1 (figure 6)."""

    def __init__(self, inputs: int, narrow: int) -> None:
        super().__init__()
        self.branch1x1 = _Convolution(inputs, 192, 1)
        self.branch7x7_1 = _Convolution(inputs, narrow, 1)
        self.branch7x7_2 = _Convolution(narrow, narrow, (1, 7))
        self.branch7x7_3 = _Convolution(narrow, 192, (7, 1))
        self.branch7x7dbl_1 = _Convolution(inputs, narrow, 1)
        self.branch7x7dbl_2 = _Convolution(narrow, narrow, (7, 1))
        self.branch7x7dbl_3 = _Convolution(narrow, narrow, (1, 7))
        self.branch7x7dbl_4 = _Convolution(narrow, narrow, (7, 1))
        self.branch7x7dbl_5 = _Convolution(narrow, 192, (1, 7))
        self.branch_pool = _Convolution(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(_average(x))], 1)


class _D(nn.Module):
    """17x17 to 8x8 positions."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1 = _Convolution(inputs, 192, 1)
        self.branch3x3_2 = _Convolution(192, 320, 3, stride=2, padding="valid")
        self.branch7x7x3_1 = _Convolution(inputs, 192, 1)
        self.branch7x7x3_2 = _Convolution(192, 192, (1, 7))
        self.branch7x7x3_3 = _Convolution(192, 192, (7, 1))
        self.branch7x7x3_4 = _Convolution(192, 192, 3, stride=2, padding="valid")

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat([three, self.branch7x7x3_4(seven), max_pool2d(x, 3, stride=2)], 1)


class _E(nn.Module):
    """8x8 positions: 3x3 convolutions as 1x3 and 3x1 beside each other (figure 7)."""

    def __init__(self, inputs: int, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.pool = pool
        self.branch1x1 = _Convolution(inputs, 320, 1)
        self.branch3x3_1 = _Convolution(inputs, 384, 1)
        self.branch3x3_2a = _Convolution(384, 384, (1, 3))
        self.branch3x3_2b = _Convolution(384, 384, (3, 1))
        self.branch3x3dbl_1 = _Convolution(inputs, 448, 1)
        self.branch3x3dbl_2 = _Convolution(448, 384, 3)
        self.branch3x3dbl_3a = _Convolution(384, 384, (1, 3))
        self.branch3x3dbl_3b = _Convolution(384, 384, (3, 1))
        self.branch_pool = _Convolution(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        three, double = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        wide, tall = self.branch3x3_2a(three), self.branch3x3_2b(three)
        wide_double, tall_double = self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)
        pooled = self.branch_pool(self.pool(x))
        return torch.cat([self.branch1x1(x), wide, tall, wide_double, tall_double, pooled], 1)
