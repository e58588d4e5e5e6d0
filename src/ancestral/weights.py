"""What weights are, by their checksum: two modules with the same one compute the same."""

import hashlib
from collections.abc import Collection

import torch
from torch import nn


def state_checksum(module: nn.Module, names: Collection[str] | None = None) -> str:
    """SHA-256 (hex) of the names, types, shapes and values of a module's state, or of some names of it.

    >>> layer = nn.Linear(2, 1)
    >>> before = state_checksum(layer, ["weight"])
    >>> _ = nn.init.zeros_(layer.bias)
    >>> state_checksum(layer, ["weight"]) == before
    True
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if names is None or name in names:
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
