"""Fashion-MNIST (Xiao, Rasul & Vollgraf, 2017, arXiv:1708.07747): 70,000 gray images of clothes, 28x28."""

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ancestral.data.hub import hub
from ancestral.data.pictures import TEST, TRAIN, Pictures
from ancestral.data.pixels import to_image
from ancestral.errors import UserError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
HUB = "zalando-datasets/fashion_mnist"
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
SHA256 = {
    "train images": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
    "train labels": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
    "test images": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
    "test labels": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
}
"""Of the values as unsigned bytes, without the headers of the files."""
TRAIN_SIZE = 60_000


def fashion_mnist() -> Pictures:
    """Fashion-MNIST from Debian's package, else from the Hugging Face Hub.

    Raises:
        UserError: it is in neither place, or is not the published data.
    """
    x, labels, place = (*_from_debian(), str(DEBIAN)) if DEBIAN.is_dir() else (*_from_hub(), f"hub:{HUB}")
    parts = {
        "train images": x[:TRAIN_SIZE],
        "train labels": labels[:TRAIN_SIZE],
        "test images": x[TRAIN_SIZE:],
        "test labels": labels[TRAIN_SIZE:],
    }
    for part, values in parts.items():
        if (got := hashlib.sha256(values.tobytes()).hexdigest()) != SHA256[part]:
            raise UserError(
                f"expected the {part} of Fashion-MNIST with SHA-256 {SHA256[part][:12]}..., "
                f"got {got[:12]}... from {place}",
                "the files are damaged: install them again "
                "(apt-get install --reinstall dataset-fashion-mnist)",
            )
    x = x.reshape(-1, 1, 28, 28)
    return Pictures(
        source="fashion-mnist",
        names=tuple(f"train/{i}" for i in range(TRAIN_SIZE))
        + tuple(f"test/{i}" for i in range(len(x) - TRAIN_SIZE)),
        read=lambda i: to_image(x[i, 0], 256),
        given=np.where(np.arange(len(x)) < TRAIN_SIZE, TRAIN, TEST).astype(np.int8),
        key="".join(SHA256.values()),
        labels=labels.astype(np.int64),
        classes=CLASSES,
        array=x,
    )


def _from_debian() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pixels ``(N, 784)`` and labels ``(N,)``, train before test."""
    images = np.concatenate([_idx(f"{split}-images-idx3-ubyte.gz", 16) for split in ("train", "t10k")])
    labels = np.concatenate([_idx(f"{split}-labels-idx1-ubyte.gz", 8) for split in ("train", "t10k")])
    return images[: len(images) // 784 * 784].reshape(-1, 784), labels


def _idx(name: str, header: int) -> NDArray[np.uint8]:
    try:
        return np.frombuffer(gzip.decompress((DEBIAN / name).read_bytes())[header:], np.uint8)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"cannot read {DEBIAN / name} ({error})",
            "install it again: apt-get install --reinstall dataset-fashion-mnist",
        ) from error


def _from_hub() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    try:
        pictures = hub(HUB)
    except UserError as error:
        raise UserError(
            f"Fashion-MNIST is not on this machine (looked in {DEBIAN}) "
            f"and cannot be fetched ({error.problem})",
            "apt-get install dataset-fashion-mnist, or with a network: pip install 'ancestral[hub]'",
        ) from error
    x = np.stack([np.asarray(pictures.read(i)).reshape(-1) for i in range(len(pictures))])
    assert pictures.labels is not None
    return x, pictures.labels.astype(np.uint8)
