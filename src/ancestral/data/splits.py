"""Share examples out among the splits by their content alone, so that nothing leaks from one into another."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ancestral.data.pictures import SPLITS, TEST, TRAIN, VALIDATION
from ancestral.data.preparation import Preparation
from ancestral.errors import UserError

DROPPED = -1


@dataclass(frozen=True)
class Assignment:
    """Which examples of the source form which split."""

    rows: Mapping[str, NDArray[np.int64]]
    """Positions in the source, in the order of each split; those of train are in place wherever the place
    exists (see ``_compacted``)."""
    duplicates: int
    """Examples left out because the same values stand in a held-out split of the source's own."""


def content_hashes(x: NDArray[Any], *, mirrored: bool = False) -> NDArray[np.uint64]:
    """A hash ``(N,)`` of each row's values; the key makes its order a permutation that is always the same.

    With ``mirrored``, ``(N, 2)``: of each row and of its mirror image, the last axis reversed.
    """
    if mirrored:
        return np.stack([content_hashes(x), content_hashes(x[..., ::-1])], 1)
    rows = np.ascontiguousarray(x).reshape(len(x), -1)
    return np.frombuffer(
        b"".join(hashlib.blake2b(row.data, digest_size=8, key=b"ancestral splits").digest() for row in rows),
        "<u8",
    )


def united(hashes: NDArray[np.uint64], usable: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """One hash ``(N,)`` for an image and its mirror image, from those of both ``(N, 2)``.

    It is the smaller one where there are such two, and else the image's own.

    >>> united(np.array([[7, 3], [5, 8], [3, 7]], np.uint64), np.ones(3, bool)).tolist()
    [3, 5, 3]
    """
    own, mirror = hashes.T
    return np.where(np.isin(mirror, own[usable]), hashes.min(1), own)


def assign(
    source: str,
    hashes: NDArray[np.uint64],
    given: NDArray[np.int8],
    usable: NDArray[np.bool_],
    preparation: Preparation,
    *,
    remedy: str,
) -> Assignment:
    """Assign each usable example to a split.

    Splits of the source's own are kept: test whole, the others without the examples that a more held-out
    split has too. Other splits are taken from train, in the order of the content's hash, and equal examples
    together.

    Args:
        source: what the source is called.
        hashes: of the content of each example, ``(N,)``.
        given: the split ``(N,)`` that the source puts each example in; TRAIN where it has none.
        usable: which examples are not to be left out, ``(N,)``.
        preparation: the shares of the splits that the source does not have.
        remedy: what to do where there are too few examples.

    Raises:
        UserError: a split would be empty.
    """
    split = np.where(usable, given, DROPPED)
    held_out = (split == TEST) | (split == VALIDATION)
    leaks = (split == TRAIN) & np.isin(hashes, hashes[held_out])
    leaks |= (split == VALIDATION) & np.isin(hashes, hashes[split == TEST])
    split[leaks] = DROPPED
    for code, share in ((TEST, preparation.test), (VALIDATION, preparation.validation)):
        if not (given == code).any():
            _hold_out(split, hashes, code, share)

    sizes = [int((split == code).sum()) for code in range(len(SPLITS))]
    if 0 in sizes:
        got = ", ".join(f"{size} for {name}" for name, size in zip(SPLITS, sizes, strict=True))
        raise UserError(
            f"expected examples in every split of {source}, got {got}, so one would be empty", remedy
        )
    rows = {name: np.flatnonzero(split == code) for code, name in enumerate(SPLITS)}
    rows["train"] = _compacted(rows["train"])
    return Assignment(rows, int(leaks.sum()))


def by_prompt(
    prompts: Sequence[str], preparation: Preparation
) -> tuple[NDArray[np.uint64], NDArray[np.int8]]:
    """A hash ``(N,)`` of what is said in each recording, and the split ``(N,)`` that follows from it alone.

    So a prompt is in the same split whichever voices there are.

    >>> hashes, splits = by_prompt(["one", "two", "three", "one"], Preparation())
    >>> bool(hashes[0] == hashes[3]), splits.tolist()
    (True, [0, 0, 0, 0])
    """
    rows = [np.frombuffer(prompt.encode(errors="surrogateescape"), np.uint8) for prompt in prompts]
    hashes = np.concatenate([content_hashes(row[None]) for row in rows])
    places = hashes / 2.0**64
    held_out = preparation.test + preparation.validation * (1 - preparation.test)
    splits = np.where(places < preparation.test, TEST, np.where(places < held_out, VALIDATION, TRAIN))
    return hashes, splits.astype(np.int8)


def _hold_out(split: NDArray[np.int8], hashes: NDArray[np.uint64], code: int, share: float) -> None:
    """Move groups of equal examples from train to split ``code``.

    They are at most ``share`` of train, but one group if there is one to spare.
    """
    candidates = split == TRAIN
    n = int(candidates.sum())
    wanted = min(max(1, round(share * n)), n - 1)
    groups, counts = np.unique(hashes[candidates], return_counts=True)
    chosen, taken = [], 0
    for group, count in zip(groups, counts.tolist(), strict=True):
        if taken >= wanted:
            break
        if taken + count <= wanted:
            chosen.append(group)
            taken += count
    if not chosen and len(groups) > 1:
        chosen = [groups[counts.argmin()]]
    split[candidates & np.isin(hashes, np.asarray(chosen, np.uint64))] = code


def _compacted(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same rows, those at positions beyond ``len(rows)`` in the places of those that are missing.

    So the rows can be brought together inside their own array or file: nothing that is still to be read is
    ever overwritten.
    """
    order = np.arange(len(rows))
    order[np.setdiff1d(order, rows, assume_unique=True)] = rows[rows >= len(rows)]
    return order
