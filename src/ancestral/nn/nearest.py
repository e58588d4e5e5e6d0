"""The nearest code of each vector, without ever holding all distances."""

import torch
from torch import Tensor

_GROUP = 32
"""Codes whose smallest distance is taken together: a plain minimum runs several times faster than an argmin on a CPU."""


@torch.no_grad()
def nearest_codes(rows: Tensor, codebook: Tensor) -> Tensor:
    """Index of the nearest code of each row in Euclidean distance, ``(n,)`` int64; the first of equally near ones.

    The distances are worked through in blocks of rows, so that memory beyond the result is bounded.

    Args:
        rows: ``(n, D)``.
        codebook: ``(K, D)``, of the same dtype.
    """
    n, k = len(rows), len(codebook)
    # |r - c|^2 = |r|^2 - 2 r.c + |c|^2, and |r|^2 is the same for all codes.
    half_norms = codebook.square().sum(-1) / 2
    on_cpu = rows.device.type == "cpu"
    block = min(n, max(64, (2**19 if on_cpu else 2**26) // k)) if n else 1
    padded = k if not on_cpu else -(-k // _GROUP) * _GROUP
    if padded > k:
        codebook = torch.cat([codebook, codebook.new_zeros(padded - k, codebook.shape[1])])
        half_norms = torch.cat([half_norms, half_norms.new_full((padded - k,), torch.inf)])
    transposed = codebook.t()
    buffer = rows.new_empty(block, padded)
    result = torch.empty(n, dtype=torch.int64, device=rows.device)
    for start in range(0, n, block):
        part = rows[start : start + block]
        scores = torch.addmm(half_norms, part, transposed, alpha=-1, out=buffer[: len(part)])
        result[start : start + block] = _grouped_argmin(scores) if on_cpu else scores.argmin(-1)
    return result


def _grouped_argmin(scores: Tensor) -> Tensor:
    """``scores.argmin(-1)`` of a matrix whose width is a multiple of the group: the best group, then the best within it."""
    grouped = scores.unflatten(-1, (-1, _GROUP))
    best = grouped.amin(-1).min(-1).indices
    winners = grouped.gather(1, best.view(-1, 1, 1).expand(-1, 1, _GROUP)).squeeze(1)
    return best * _GROUP + winners.min(-1).indices
