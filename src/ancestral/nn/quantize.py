"""Quantizers: continuous features to maps of code indices and back, behind one interface.

``VectorQuantizer`` (van den Oord et al., 2017, https://arxiv.org/abs/1711.00937), ``ResidualQuantizer`` (Zeghidour et al., 2021,
https://arxiv.org/abs/2107.03312) and ``FiniteScalarQuantizer`` (Mentzer et al., 2023, https://arxiv.org/abs/2309.15505). Each is usable
alone: features ``(N, D, *grid)`` in, a ``Quantized`` out.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import embedding, mse_loss, normalize

from ancestral.errors import UserError
from ancestral.nn.nearest import nearest_codes


@dataclass(frozen=True)
class Quantized:
    """What a quantizer makes of features."""

    z: Tensor
    """Quantised features, of the shape of the input; gradients pass straight through to it."""
    codes: Tensor
    """Code indices ``(N, M, *grid)``, int64."""
    loss: Tensor
    """What the quantizer adds to the loss: a scalar mean over all features, its weights applied."""
    usage: Tensor
    """Times that this batch (of all processes) used each code, ``(M, codebook_size)``."""

    @property
    def perplexity(self) -> Tensor:
        """Exponential of the entropy of the codes used, a mean over the M codebooks: between 1 and codebook_size."""
        return perplexity(self.usage).mean()


def perplexity(usage: Tensor) -> Tensor:
    """Exponential of the entropy of counts ``(..., K)``: the number of codes that would give it if used equally."""
    p = usage / usage.sum(-1, keepdim=True).clamp(min=1)
    return torch.special.entr(p).sum(-1).exp()


class Quantizer(nn.Module, ABC):
    """Features ``(N, D, *grid)`` to M code maps of ``codebook_size`` codes each, and back."""

    dim: int
    codebook_size: int
    num_codebooks: int

    @abstractmethod
    def forward(self, z: Tensor) -> Quantized:
        """Quantise ``(N, D, *grid)``."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """The features ``(N, D, *grid)`` that codes ``(N, M, *grid)`` stand for."""

    def encode(self, z: Tensor) -> Tensor:
        """The codes ``(N, M, *grid)`` of features ``(N, D, *grid)``; changes nothing."""
        with torch.no_grad():
            return self(z).codes

    def _check(self, z: Tensor) -> None:
        if z.dim() < 2 or z.shape[1] != self.dim:
            raise UserError(f"expected features (N, {self.dim}, ...), got {tuple(z.shape)}", "put the channels second")


class VectorQuantizer(Quantizer):
    """Nearest-neighbour quantisation with one or several learned codebooks.

    The D features of a position are cut into ``num_codebooks`` equal parts, each with a codebook of its own. The statistics of the codebook
    are those of the whole batch of all processes, so that every process keeps the same codebook.

    Args:
        dim: D.
        codebook_size: K, at least 2.
        num_codebooks: M, a divisor of D.
        update: ``ema`` moves codes to the running mean of their features (appendix A.1 of the paper); ``gradient`` learns them by the
            codebook term of equation 3.
        commitment_weight: beta of equation 3; weighs the encoder's term only.
        decay: gamma of the running means.
        kmeans_start: set the codebook to the k-means centres of the first batch.
        revive_below: codes used less than this share of an even use (by running mean) are moved to features of the batch; 0 never does.
        cosine: normalise features and codes to length 1.

    Raises:
        UserError: K < 2, or M does not divide D.
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor
    started: Tensor
    updates: Tensor

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        *,
        num_codebooks: int = 1,
        update: Literal["ema", "gradient"] = "ema",
        commitment_weight: float = 0.25,
        decay: float = 0.99,
        kmeans_start: bool = True,
        revive_below: float = 0.05,
        cosine: bool = False,
    ) -> None:
        super().__init__()
        if codebook_size < 2:
            raise UserError(f"expected a codebook of at least 2 codes, got {codebook_size}", "try 512")
        if num_codebooks < 1 or dim % num_codebooks:
            raise UserError(f"expected a number of codebooks that divides {dim} features, got {num_codebooks}", "choose a divisor")
        self.dim, self.codebook_size, self.num_codebooks = dim, codebook_size, num_codebooks
        self.update, self.commitment_weight, self.decay = update, commitment_weight, decay
        self.revive_below, self.cosine = revive_below, cosine

        width = dim // num_codebooks
        codebook = torch.randn(num_codebooks, codebook_size, width) / math.sqrt(width)
        if cosine:
            codebook = normalize(codebook, dim=-1)
        if update == "ema":
            self.register_buffer("codebook", codebook)
            self.register_buffer("sums", codebook.clone())
        else:
            self.codebook = nn.Parameter(codebook)
        # A count of 1 beside a sum of the code itself: rare codes stay where they are until they are used.
        self.register_buffer("counts", torch.ones(num_codebooks, codebook_size))
        self.register_buffer("started", torch.tensor(not kmeans_start))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self._known_started = not kmeans_start

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"dim={self.dim}, codebook_size={self.codebook_size}, num_codebooks={self.num_codebooks}, update={self.update!r}"

    def forward(self, z: Tensor) -> Quantized:
        """See ``Quantizer.forward``. Learns from ``z`` in training mode while gradients are on, and only then."""
        self._check(z)
        learns = self.training and torch.is_grad_enabled()
        with torch.autocast(z.device.type, enabled=False):
            rows = z.movedim(1, -1).reshape(-1, self.num_codebooks, self.dim // self.num_codebooks)
            rows = rows.float() if rows.dtype in (torch.bfloat16, torch.float16) else rows
            if self.cosine:
                rows = normalize(rows, dim=-1)
            if learns and not self._has_started():
                self._start(rows.detach())
            parts = [self._quantize(rows[:, m], m) for m in range(self.num_codebooks)]
            codes = torch.stack([codes for codes, _, _ in parts], 1)
            usage = torch.stack([_histogram(c, self.codebook_size) for c in codes.unbind(1)]).to(self.counts.dtype)
            if learns:
                usage = self._learn(rows.detach(), codes, usage)
        quantized = parts[0][1] if len(parts) == 1 else torch.cat([q for _, q, _ in parts], -1)
        loss = torch.stack([loss for _, _, loss in parts]).mean()
        grid = z.shape[2:]
        return Quantized(
            quantized.reshape(z.shape[0], *grid, self.dim).movedim(-1, 1).to(z.dtype),
            codes.reshape(z.shape[0], *grid, self.num_codebooks).movedim(-1, 1),
            loss,
            usage,
        )

    def decode(self, codes: Tensor) -> Tensor:
        """See ``Quantizer.decode``."""
        parts = [embedding(part.long(), table) for part, table in zip(codes.unbind(1), self.codebook, strict=True)]
        return torch.cat(parts, -1).movedim(-1, 1)

    def _quantize(self, rows: Tensor, m: int) -> tuple[Tensor, Tensor, Tensor]:
        """Codes, straight-through vectors and loss of ``rows`` ``(n, width)`` under codebook ``m``."""
        table = self.codebook[m].to(rows.dtype)
        if self.cosine:
            table = normalize(table, dim=-1)
        codes = nearest_codes(rows.detach(), table.detach())
        chosen = embedding(codes, table)
        quantized, commitment = _StraightThrough.apply(rows, chosen.detach())
        loss = self.commitment_weight * commitment
        if self.update == "gradient":
            loss = loss + mse_loss(chosen, rows.detach())
        return codes, quantized, loss

    def _has_started(self) -> bool:
        if not self._known_started:
            self._known_started = bool(self.started)  # reads the device until it is true, never after
        return self._known_started

    @torch.no_grad()
    def _start(self, rows: Tensor) -> None:
        """k-means on the rows of all processes; the running sums become centre x count."""
        rows = _gather(rows)
        for m in range(self.num_codebooks):
            centers, counts = kmeans(rows[:, m], self.codebook_size, cosine=self.cosine)
            _broadcast(centers)
            self.codebook[m].copy_(centers)
            self.counts[m].copy_(counts)
            if self.update == "ema":
                self.sums[m].copy_(centers * counts.unsqueeze(-1))
        self.started.fill_(True)
        self._known_started = True

    @torch.no_grad()
    def _learn(self, rows: Tensor, codes: Tensor, usage: Tensor) -> Tensor:
        """Update running means, codebook and dead codes from the batch of all processes; the usage in that batch."""
        processes = _processes()
        total = len(rows) * processes
        sums = torch.stack([_sum_by_code(rows[:, m], codes[:, m], self.codebook_size) for m in range(self.num_codebooks)])
        candidates = self._candidates(rows, total)
        sums, candidates, usage = _sum_over_processes(sums, candidates, usage)

        self.counts.lerp_(usage, 1 - self.decay)
        if self.update == "ema":
            self.sums.lerp_(sums.to(self.sums.dtype), 1 - self.decay)
            n = self.counts.sum(-1, keepdim=True)
            # Laplace smoothing (appendix A.1) divides; the raw counts stay as they are.
            smoothed = (self.counts + 1e-5) / (n + self.codebook_size * 1e-5) * n
            codebook = self.sums / smoothed.unsqueeze(-1)
            self.codebook.copy_(normalize(codebook, dim=-1) if self.cosine else codebook)
        if self.revive_below > 0:
            self._revive(candidates.to(self.codebook.dtype), total / self.codebook_size)
        self.updates += 1
        return usage

    def _candidates(self, rows: Tensor, total: int) -> Tensor:
        """A row of the whole batch for each code, ``(M, K, width)``; zero where another process holds the row."""
        # The pick hashes code and update number: the same on every process, the same after a resume, and no host synchronisation.
        code = torch.arange(self.codebook_size, device=rows.device)
        pick = ((code + 1) * 2654435761 + (self.updates + 1) * 40503 * 65537) % 4294967291 % total
        first = _rank() * len(rows)
        local = (pick - first).clamp(0, len(rows) - 1)
        here = ((pick >= first) & (pick < first + len(rows))).unsqueeze(-1).to(rows.dtype)
        return torch.stack([rows[local, m] * here for m in range(self.num_codebooks)])

    def _revive(self, candidates: Tensor, even: float) -> None:
        """Move dead codes to ``candidates`` with the count of an even use, sums included, else the next mean would undo it."""
        dead = self.counts < self.revive_below * even
        self.counts.masked_fill_(dead, even)
        self.codebook.copy_(torch.where(dead.unsqueeze(-1), candidates, self.codebook))
        if self.update == "ema":
            self.sums.copy_(torch.where(dead.unsqueeze(-1), candidates * even, self.sums))


class ResidualQuantizer(Quantizer):
    """A sequence of ``VectorQuantizer``, each on what the ones before left over (Zeghidour et al., 2021, algorithm 1).

    Args:
        dim: D.
        codebook_size: K of each.
        num_codebooks: how many.
        options: passed to each ``VectorQuantizer``.
    """

    def __init__(self, dim: int, codebook_size: int, *, num_codebooks: int = 4, **options: Any) -> None:
        super().__init__()
        if num_codebooks < 1:
            raise UserError(f"expected at least 1 codebook, got {num_codebooks}", "try 4")
        self.dim, self.codebook_size, self.num_codebooks = dim, codebook_size, num_codebooks
        self.quantizers = nn.ModuleList(VectorQuantizer(dim, codebook_size, **options) for _ in range(num_codebooks))

    def forward(self, z: Tensor) -> Quantized:
        """See ``Quantizer.forward``."""
        self._check(z)
        residual, total = z, torch.zeros_like(z)
        parts: list[Quantized] = []
        for quantizer in self.quantizers:
            part = quantizer(residual)
            parts.append(part)
            total = total + part.z.detach()
            residual = residual - part.z.detach()
        # Straight through the sum: the residuals' own gradients come from the commitment terms.
        return Quantized(
            z + (total - z).detach(),
            torch.cat([part.codes for part in parts], 1),
            torch.stack([part.loss for part in parts]).sum(),
            torch.cat([part.usage for part in parts]),
        )

    def decode(self, codes: Tensor) -> Tensor:
        """See ``Quantizer.decode``. Fewer code maps than quantizers give a coarser result."""
        features = [quantizer.decode(part) for quantizer, part in zip(self.quantizers, codes.split(1, 1), strict=False)]
        return torch.stack(features).sum(0)


class FiniteScalarQuantizer(Quantizer):
    """Each feature bounded and rounded to a few levels; a code is the combination (Mentzer et al., 2023, section 3).

    There is no codebook to learn, and so none to collapse. ``dim`` is the number of levels given, and the codebook size their product.

    Args:
        levels: number of levels of each feature; the paper's table 1 suggests (8, 6, 5) for 240 and (8, 5, 5, 5) for 1,000 codes.
    """

    levels: Tensor
    basis: Tensor

    def __init__(self, levels: Sequence[int] = (8, 6, 5)) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise UserError(f"expected at least 2 levels for each feature, got {tuple(levels)}", "try 8 6 5")
        self.dim, self.codebook_size, self.num_codebooks = len(levels), math.prod(levels), 1
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.register_buffer("basis", torch.tensor([math.prod(levels[:i]) for i in range(len(levels))]), persistent=False)

    def forward(self, z: Tensor) -> Quantized:
        """See ``Quantizer.forward``. The loss is 0."""
        self._check(z)
        with torch.autocast(z.device.type, enabled=False):
            rows = z.movedim(1, -1)
            rows = rows.float() if rows.dtype in (torch.bfloat16, torch.float16) else rows
            half = (self.levels - 1) * (1 + 1e-3) / 2
            # An even number of levels is rounded around a half, so that all of them can be reached.
            offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
            bounded = (rows + torch.atanh(offset / half)).tanh() * half - offset
            rounded = bounded + (bounded.round() - bounded).detach()
            width = self.levels // 2
            codes = ((rounded.detach() + width) * self.basis).sum(-1).round().long()
        usage = _histogram(codes, self.codebook_size).to(rows.dtype).unsqueeze(0)
        if self.training and torch.is_grad_enabled():
            (usage,) = _sum_over_processes(usage)
        return Quantized((rounded / width).movedim(-1, 1).to(z.dtype), codes.unsqueeze(1), rows.new_zeros(()), usage)

    def decode(self, codes: Tensor) -> Tensor:
        """See ``Quantizer.decode``."""
        digits = codes.squeeze(1).unsqueeze(-1) // self.basis % self.levels
        width = self.levels // 2
        return ((digits - width).to(torch.get_default_dtype()) / width).movedim(-1, 1)


class _StraightThrough(torch.autograd.Function):
    """Forward: the chosen codes and the commitment mean((rows - chosen)^2). Backward: gradients to ``rows`` alone."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        difference = rows - chosen
        flat = difference.flatten()
        ctx.save_for_backward(difference)
        return chosen.view_as(chosen), flat.dot(flat) / flat.numel()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (difference,) = ctx.saved_tensors
        through, commitment = gradients
        return torch.addcmul(through, difference, commitment * (2 / difference.numel())), None


@torch.no_grad()
def kmeans(rows: Tensor, k: int, *, iterations: int = 10, cosine: bool = False) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm: centres ``(k, D)`` of ``rows`` ``(n, D)`` and the number of rows at each, both float.

    Starts from rows spread evenly over the input; an empty cluster starts again from another row.
    """
    n = len(rows)
    picks = torch.arange(k, device=rows.device) * 2654435761 % 4294967291
    centers = rows[picks % n]
    counts = rows.new_ones(k)
    for iteration in range(iterations):
        codes = nearest_codes(rows, centers)
        counts = _histogram(codes, k).to(rows.dtype)
        means = _sum_by_code(rows, codes, k) / counts.clamp(min=1).unsqueeze(-1)
        restart = rows[(picks + (iteration + 1) * 7919) % n]
        centers = torch.where((counts > 0).unsqueeze(-1), means, restart)
        centers = normalize(centers, dim=-1) if cosine else centers
    # A code that ended empty keeps a count of one, so that its running mean is its centre.
    return centers, counts.clamp(min=1)


def _histogram(codes: Tensor, size: int) -> Tensor:
    flat = codes.flatten()
    return torch.zeros(size, dtype=torch.int64, device=codes.device).scatter_add_(0, flat, torch.ones_like(flat))


def _sum_by_code(rows: Tensor, codes: Tensor, size: int) -> Tensor:
    """The sum of the rows of each code, ``(size, D)``."""
    total: Tensor = torch.ops.aten.embedding_dense_backward(rows, codes, size, -1, False)
    return total


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _rank() -> int:
    return dist.get_rank() if _processes() > 1 else 0


def _sum_over_processes(*tensors: Tensor) -> list[Tensor]:
    """The sums of the tensors over all processes, in one message."""
    if _processes() == 1:
        return list(tensors)
    message = torch.cat([tensor.flatten().float() for tensor in tensors])
    dist.all_reduce(message)
    parts = message.split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor).to(tensor.dtype) for part, tensor in zip(parts, tensors, strict=True)]


def _gather(rows: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks."""
    if _processes() == 1:
        return rows
    gathered = [torch.empty_like(rows) for _ in range(_processes())]
    dist.all_gather(gathered, rows.contiguous())
    return torch.cat(gathered)


def _broadcast(tensor: Tensor) -> None:
    if _processes() > 1:
        dist.broadcast(tensor, 0)
