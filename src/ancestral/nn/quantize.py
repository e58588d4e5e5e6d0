"""Quantizers: continuous features to maps of code indices and back, behind one interface.

``VectorQuantizer`` (van den Oord et al., 2017, https://arxiv.org/abs/1711.00937), ``ResidualQuantizer``
(Zeghidour et al., 2021, https://arxiv.org/abs/2107.03312) and ``FiniteScalarQuantizer`` (Mentzer et al.,
2023, https://arxiv.org/abs/2309.15505). Each is usable alone: features ``(N, D, *grid)`` in, a ``Quantized``
out.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

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
    """Quantized features, of the shape of the input; gradients pass straight through to it."""
    codes: Tensor
    """Code indices ``(N, M, *grid)``, int64."""
    loss: Tensor
    """What the quantizer adds to the loss: a scalar mean over all features, its weights applied."""
    usage: Tensor
    """Times that this batch (in training: of all processes) used each code, ``(M, codebook_size)``."""

    @property
    def perplexity(self) -> Tensor:
        """Exponential of the entropy of the codes used, a mean over the M codebooks; 1 to codebook_size."""
        return perplexity(self.usage).mean()


def perplexity(usage: Tensor) -> Tensor:
    """Exponential of the entropy of counts ``(..., K)``: as many codes, evenly used, would give it.

    >>> perplexity(torch.tensor([[5.0, 5.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]))
    tensor([2., 4.])
    """
    p = usage / usage.sum(-1, keepdim=True).clamp(min=1)
    return torch.special.entr(p).sum(-1).exp()


class Quantizer(nn.Module, ABC):
    """Features ``(N, D, *grid)`` to M code maps of ``codebook_size`` codes each, and back."""

    dim: int
    codebook_size: int
    num_codebooks: int

    @abstractmethod
    def forward(self, z: Tensor) -> Quantized:
        """Quantize ``(N, D, *grid)``."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """The features ``(N, D, *grid)`` that codes ``(N, M, *grid)`` stand for."""

    def encode(self, z: Tensor) -> Tensor:
        """The codes ``(N, M, *grid)`` of features ``(N, D, *grid)``; changes nothing."""
        with torch.no_grad():
            return self(z).codes

    def start(self, z: Tensor) -> None:
        """Set what is to start from data from features ``(N, D, *grid)`` of all processes, once.

        A quantizer in a training loop of one's own does so by itself in its first step.
        """

    def _check(self, z: Tensor) -> None:
        if z.dim() < 2 or z.shape[1] != self.dim:
            raise UserError(
                f"expected features (N, {self.dim}, ...), got {tuple(z.shape)}", "put the channels second"
            )

    def _check_codes(self, codes: Tensor) -> None:
        if codes.dim() < 2 or codes.shape[1] != self.num_codebooks:
            raise UserError(
                f"expected codes (N, {self.num_codebooks}, ...), got {tuple(codes.shape)}",
                "put the codebooks second",
            )


class VectorQuantizer(Quantizer):
    """Nearest-neighbor quantization with one or several learned codebooks.

    The D features of a position are cut into ``num_codebooks`` equal parts, each with a codebook of its own.
    The statistics of the codebook are those of the whole batch of all processes, so that every process keeps
    the same codebook if all start from the same one and hold equally many features. It draws no random
    numbers after construction. A batch with a feature that is not finite, on any process, teaches it nothing:
    codebook and running means stay as they are. It does not say so, as that would wait for the device; the
    loss of such a batch is not finite either.

    Args:
        dim: D.
        codebook_size: K, at least 2.
        num_codebooks: M, a divisor of D.
        update: ``ema`` moves codes to the running mean of their features (appendix A.1 of the paper);
            ``gradient`` learns them by the codebook term of equation 3.
        commitment_weight: beta of equation 3; weighs the encoder's term only.
        decay: gamma of the running means; step t = 0, 1, … uses (t + 1)/(t + 10) while that is less.
        kmeans_start: set the codebook to the k-means centers of the first batch.
        revive_below: codes used less than this share of an even use (by running mean) are moved to features
            of the batch; 0 never does.
        cosine: normalize features and codes to length 1 (in each part). Gradients pass straight through to
            the normalized features.

    Raises:
        UserError: K < 2, M does not divide D, or an option is out of range.

    >>> quantizer, z = VectorQuantizer(8, 16, num_codebooks=2), torch.randn(32, 8, 5, 5)
    >>> quantizer(z).codes.shape  # in training mode, so that it has learned from z
    torch.Size([32, 2, 5, 5])
    >>> out = quantizer.eval()(z)
    >>> torch.equal(quantizer.decode(out.codes), out.z)
    True
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
            raise UserError(
                f"expected a number of codebooks that divides {dim} features, got {num_codebooks}",
                "choose a divisor",
            )
        if update not in ("ema", "gradient"):
            raise UserError(f"expected update ema or gradient, got {update!r}", "choose one of them")
        if not 0 <= decay < 1 or not 0 <= revive_below < 1:
            raise UserError(
                f"expected 0 <= decay, revive_below < 1, got {decay} and {revive_below}", "try 0.99 and 0.05"
            )
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
        sizes = f"dim={self.dim}, codebook_size={self.codebook_size}, num_codebooks={self.num_codebooks}"
        return f"{sizes}, update={self.update!r}"

    def forward(self, z: Tensor) -> Quantized:
        """See ``Quantizer.forward``. Learns from ``z`` in training mode with gradients on, and only then."""
        self._check(z)
        learns = self.training and torch.is_grad_enabled()
        with torch.autocast(z.device.type, enabled=False):
            rows = self._rows(z)
            if learns:
                self._start(rows.detach())
            # A single part is a view in the backward pass too, where an index would copy it into zeros.
            inputs = rows.unbind(1) if self.num_codebooks > 1 else (rows.squeeze(1),)
            parts = [self._quantize(part, m) for m, part in enumerate(inputs)]
            codes = torch.stack([codes for codes, _, _ in parts], 1)
            usage = torch.stack([_histogram(c, self.codebook_size) for c in codes.unbind(1)]).to(
                self.counts.dtype
            )
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
        self._check_codes(codes)
        return torch.cat(
            [embedding(part.long(), self._table(m)) for m, part in enumerate(codes.unbind(1))], -1
        ).movedim(-1, 1)

    def _table(self, m: int) -> Tensor:
        """Codebook ``m`` as it quantizes, ``(K, width)``."""
        if self.update == "gradient" and self.cosine:
            # Cloned: the gradient of the norm needs these values after a revival has overwritten some.
            return normalize(self.codebook[m].clone(), dim=-1)
        return self.codebook[m]

    def _quantize(self, rows: Tensor, m: int) -> tuple[Tensor, Tensor, Tensor]:
        """Codes, straight-through vectors and loss of ``rows`` ``(n, width)`` under codebook ``m``."""
        table = self._table(m).to(rows.dtype)
        codes = nearest_codes(rows.detach(), table.detach())
        chosen = embedding(codes, table)
        quantized, commitment = _StraightThrough.apply(rows, chosen.detach())
        loss = self.commitment_weight * commitment
        if self.update == "gradient":
            loss = loss + mse_loss(chosen, rows.detach())
        return codes, quantized, loss

    def _rows(self, z: Tensor) -> Tensor:
        """What is quantized: ``(n, M, D / M)`` in at least float32."""
        rows = _widen(z).movedim(1, -1).reshape(-1, self.num_codebooks, self.dim // self.num_codebooks)
        return normalize(rows, dim=-1) if self.cosine else rows

    @torch.no_grad()
    def start(self, z: Tensor) -> None:
        """See ``Quantizer.start``: k-means."""
        self._check(z)
        with torch.autocast(z.device.type, enabled=False):
            self._start(self._rows(z))

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._known_started = False

    @torch.no_grad()
    def _start(self, rows: Tensor) -> None:
        """k-means on the first rows of all processes that are finite; running sums become center x count."""
        if not self._known_started:
            self._known_started = bool(self.started)  # reads the device until it is true, never after
        if self._known_started:
            return
        rows = _gather(rows)
        if not rows.isfinite().all():
            return
        for m in range(self.num_codebooks):
            centers, counts = kmeans(rows[:, m], self.codebook_size, cosine=self.cosine)
            _broadcast(centers, counts)
            self.codebook[m].copy_(centers)
            self.counts[m].copy_(counts)
            if self.update == "ema":
                self.sums[m].copy_(centers * counts.unsqueeze(-1))
        self.started.fill_(True)
        self._known_started = True

    @torch.no_grad()
    def _learn(self, rows: Tensor, codes: Tensor, usage: Tensor) -> Tensor:
        """Update means, codebook and dead codes from the batch of all processes, and return its usage."""
        # Everything that processes must agree on is summed over them in one message.
        news = {"usage": usage}
        if self.update == "ema":
            news["sums"] = torch.stack(
                [_sum_by_code(rows[:, m], codes[:, m], self.codebook_size) for m in range(self.num_codebooks)]
            )
        else:
            news["sums"] = rows.sum()
        if self.revive_below > 0:
            news["candidates"] = self._candidates(rows)
        news = _sum_over_processes(news)
        # Every feature is in a sum. News that are not finite are kept out without a look at them on the host.
        finite = news["sums"].isfinite().all()

        # Young means forget faster: at first the encoder moves quickly, and codes that followed slowly would
        # be left behind.
        weight = (9 / (self.updates + 10).to(self.counts.dtype)).clamp(min=1 - self.decay)
        self.counts.lerp_(torch.where(finite, news["usage"], self.counts), weight)
        if self.update == "ema":
            self.sums.lerp_(torch.where(finite, news["sums"].to(self.sums.dtype), self.sums), weight)
            n = self.counts.sum(-1, keepdim=True)
            # Laplace smoothing (appendix A.1) divides; the raw counts stay as they are.
            smoothed = (self.counts + 1e-5) / (n + self.codebook_size * 1e-5) * n
            codebook = self.sums / smoothed.unsqueeze(-1)
            codebook = normalize(codebook, dim=-1) if self.cosine else codebook
            self.codebook.copy_(torch.where(finite, codebook, self.codebook))
        if self.revive_below > 0:
            self._revive(news["candidates"].to(self.codebook.dtype), finite)
        self.updates += finite
        return news["usage"]

    def _candidates(self, rows: Tensor) -> Tensor:
        """A row of the batch of all processes for each code, ``(M, K, width)``.

        It is zero where another process holds the row.
        """
        # A function of code and update number: the same on every process and after a resume, and no host
        # synchronization.
        picks = _spread(self.codebook_size, len(rows) * _processes(), self.updates) - _rank() * len(rows)
        candidates = rows[picks.clamp(0, len(rows) - 1)].transpose(0, 1)
        if _processes() == 1:
            return candidates
        here = (picks >= 0) & (picks < len(rows))
        return candidates * here.unsqueeze(-1).to(rows.dtype)

    def _revive(self, candidates: Tensor, finite: Tensor) -> None:
        """Move dead codes to ``candidates``, where these are ``finite``, with the count of an even use.

        Sums included, else the next mean would undo it.
        """
        # The mean of the running counts is what even use would give each code, also while the running means
        # are young.
        even = self.counts.mean(-1, keepdim=True)
        dead = (self.counts < self.revive_below * even) & finite
        self.counts.copy_(torch.where(dead, even, self.counts))
        dead, even = dead.unsqueeze(-1), even.unsqueeze(-1)
        self.codebook.copy_(torch.where(dead, candidates, self.codebook))
        if self.update == "ema":
            self.sums.copy_(torch.where(dead, candidates * even, self.sums))


class ResidualQuantizer(Quantizer):
    """A sequence of ``VectorQuantizer``, each on what the ones before left over.

    It is algorithm 1 of Zeghidour et al., 2021.

    Args:
        dim: D.
        codebook_size: K of each.
        num_codebooks: how many.
        options: passed to each ``VectorQuantizer``.

    Raises:
        UserError: no codebook, ``cosine`` (what a unit vector leaves over of a unit vector is none), or what
            ``VectorQuantizer`` refuses.

    >>> quantizer, z = ResidualQuantizer(8, 16, num_codebooks=3), torch.randn(32, 8, 25)
    >>> quantizer.start(z)
    >>> codes = quantizer.encode(z)
    >>> coarse, fine = (z - quantizer.decode(codes[:, :m]) for m in (1, 3))
    >>> codes.shape, bool(fine.norm() < coarse.norm())
    (torch.Size([32, 3, 25]), True)
    """

    def __init__(self, dim: int, codebook_size: int, *, num_codebooks: int = 4, **options: Any) -> None:
        super().__init__()
        if num_codebooks < 1:
            raise UserError(f"expected at least 1 codebook, got {num_codebooks}", "try 4")
        if options.get("cosine"):
            raise UserError(
                "expected a residual quantizer without cosine, since what is left over has a length",
                "set cosine to False",
            )
        self.dim, self.codebook_size, self.num_codebooks = dim, codebook_size, num_codebooks
        self.quantizers = nn.ModuleList(
            VectorQuantizer(dim, codebook_size, **options) for _ in range(num_codebooks)
        )

    def forward(self, z: Tensor) -> Quantized:
        """See ``Quantizer.forward``."""
        self._check(z)
        residual = _widen(z)
        parts: list[Quantized] = []
        for quantizer in self._steps():
            parts.append(quantizer(residual))
            residual = residual - parts[-1].z.detach()
        # Straight through the first step alone, whose gradient is the identity: the others would count it
        # again. What reaches z of every step is its commitment term.
        quantized = sum((part.z.detach() for part in parts[1:]), parts[0].z)
        return Quantized(
            quantized.to(z.dtype),
            torch.cat([part.codes for part in parts], 1),
            torch.stack([part.loss for part in parts]).sum(),
            torch.cat([part.usage for part in parts]),
        )

    @torch.no_grad()
    def start(self, z: Tensor) -> None:
        """See ``Quantizer.start``: each step from what the ones before leave over."""
        self._check(z)
        residual = _widen(z)
        for quantizer in self._steps():
            quantizer.start(residual)
            residual = residual - quantizer(residual).z

    def decode(self, codes: Tensor) -> Tensor:
        """See ``Quantizer.decode``. Fewer code maps than quantizers give a coarser result."""
        if codes.dim() < 2 or not 1 <= codes.shape[1] <= self.num_codebooks:
            raise UserError(
                f"expected codes (N, 1 to {self.num_codebooks}, ...), got {tuple(codes.shape)}",
                "put the codebooks second",
            )
        features = [
            quantizer.decode(part) for quantizer, part in zip(self._steps(), codes.split(1, 1), strict=False)
        ]
        return sum(features[1:], features[0])

    def _steps(self) -> Iterator[VectorQuantizer]:
        return cast(Iterator[VectorQuantizer], iter(self.quantizers))


class FiniteScalarQuantizer(Quantizer):
    """Each feature bounded and rounded to a few levels; a code is the combination.

    See Mentzer et al., 2023, section 3. There is no codebook to learn, and so none to collapse. ``dim`` is
    the number of levels given, and the codebook size their product. Two levels are -1 and 1, the sign of the
    feature: the paper's shift of even numbers of levels would put their boundary at -3.8.

    Args:
        levels: number of levels of each feature; the paper's table 1 suggests (8, 6, 5) for 240 and
            (8, 5, 5, 5) for 1,000 codes.

    Raises:
        UserError: no levels, or fewer than 2 of a feature.

    >>> quantizer = FiniteScalarQuantizer((3, 2))
    >>> quantizer.codebook_size, quantizer.decode(torch.tensor([[0], [4]])).tolist()
    (6, [[-1.0, -1.0], [0.0, 1.0]])
    >>> quantizer.encode(torch.tensor([[-9.0, -9.0], [0.1, 9.0]])).tolist()
    [[0], [4]]
    """

    levels: Tensor
    basis: Tensor

    def __init__(self, levels: Sequence[int] = (8, 6, 5)) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise UserError(f"expected at least 2 levels for each feature, got {tuple(levels)}", "try 8 6 5")
        self.dim, self.codebook_size, self.num_codebooks = len(levels), math.prod(levels), 1
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.register_buffer(
            "basis", torch.tensor([math.prod(levels[:i]) for i in range(len(levels))]), persistent=False
        )

    def forward(self, z: Tensor) -> Quantized:
        """See ``Quantizer.forward``. The loss is 0."""
        self._check(z)
        with torch.autocast(z.device.type, enabled=False):
            rows = _widen(z).movedim(1, -1)
            half = (self.levels - 1).to(rows.dtype) * (1 + 1e-3) / 2
            # An even number of levels is rounded around a half, so that all of them can be reached.
            offset = (self.levels % 2 == 0).to(rows.dtype) / 2
            # The shift gives a feature of 0 a level of its own; of two levels, 0 is the boundary.
            shift = torch.where(self.levels == 2, 0.0, torch.atanh(offset / half))
            bounded = (rows + shift).tanh() * half - offset
            rounded = bounded.detach().round()
            # In integers: float32 would merge codes above 2^24. NaN, which is none, counts as the middle; the
            # features keep it.
            codes = ((rounded.nan_to_num().long() + self.levels // 2) * self.basis).sum(-1)
            # Straight through the rounding. Adding a zero that carries the gradient leaves the value exactly
            # that of ``decode``.
            quantized = self._scaled(rounded + (bounded - bounded.detach()))
        usage = _histogram(codes.flatten(), self.codebook_size).to(rows.dtype).unsqueeze(0)
        if self.training and torch.is_grad_enabled():
            usage = _sum_over_processes({"usage": usage})["usage"]
        return Quantized(quantized.movedim(-1, 1).to(z.dtype), codes.unsqueeze(1), rows.new_zeros(()), usage)

    def decode(self, codes: Tensor) -> Tensor:
        """See ``Quantizer.decode``."""
        self._check_codes(codes)
        digits = codes.long().movedim(1, -1) // self.basis % self.levels
        return self._scaled((digits - self.levels // 2).to(torch.get_default_dtype())).movedim(-1, 1)

    def _scaled(self, steps: Tensor) -> Tensor:
        """Levels counted from the one in the middle, as features in [-1, 1]; of two, the upper one is 0."""
        two = (self.levels == 2).to(steps.dtype)
        return (steps + two / 2) * (1 + two) / (self.levels // 2)


class _StraightThrough(torch.autograd.Function):
    """The chosen codes and the commitment mean((rows - chosen)^2), with gradients to ``rows`` alone."""

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
    """Lloyd's algorithm: centers ``(k, D)`` of ``rows`` ``(n, D)``, and how many rows are at each, as floats.

    Starts from rows spread evenly over the input; an empty cluster starts again from another row.

    >>> centers, counts = kmeans(torch.tensor([[0.0], [9.0], [1.0], [11.0]]), 2)
    >>> sorted(centers.flatten().tolist()), counts.tolist()
    ([0.5, 10.0], [2.0, 2.0])
    """
    n = len(rows)
    centers = rows[_spread(k, n, 0, rows.device)]
    counts = rows.new_ones(k)
    for iteration in range(iterations):
        codes = nearest_codes(rows, centers)
        counts = _histogram(codes, k).to(rows.dtype)
        means = _sum_by_code(rows, codes, k) / counts.clamp(min=1).unsqueeze(-1)
        centers = torch.where(
            (counts > 0).unsqueeze(-1), means, rows[_spread(k, n, iteration + 1, rows.device)]
        )
        centers = normalize(centers, dim=-1) if cosine else centers
    # A code that ended empty keeps a count of one, so that its running mean is its center.
    return centers, counts.clamp(min=1)


def _widen(z: Tensor) -> Tensor:
    """In at least float32: distances and running means need more than the 8 bits of bfloat16."""
    return z.float() if z.dtype in (torch.bfloat16, torch.float16) else z


def _spread(count: int, total: int, turn: int | Tensor, device: torch.device | None = None) -> Tensor:
    """``count`` of the places 0 ... total - 1, spread over all; others at every ``turn``.

    None comes twice while count <= total.
    """
    # A stride without a common factor meets every place once before any twice; one near the golden section of
    # the total also keeps the places apart and off the columns of an image.
    stride = next(
        stride
        for stride in range(max(1, round(total * 0.618)), 2 * total + 1)
        if math.gcd(stride, total) == 1
    )
    device = turn.device if isinstance(turn, Tensor) else device
    return (torch.arange(count, device=device) * stride + turn * 2654435761) % total


def _histogram(codes: Tensor, size: int) -> Tensor:
    return torch.zeros(size, dtype=torch.int64, device=codes.device).scatter_add_(
        0, codes, torch.ones_like(codes)
    )


def _sum_by_code(rows: Tensor, codes: Tensor, size: int) -> Tensor:
    """The sum of the rows of each code, ``(size, D)``, always added in the same order."""
    if rows.device.type == "cpu":
        return rows.new_zeros(size, rows.shape[1]).index_add_(0, codes, rows)
    # On CUDA this adds in the order in which threads happen to arrive; the gradient of an embedding sorts the
    # codes first.
    total: Tensor = torch.ops.aten.embedding_dense_backward(rows, codes, size, -1, False)
    return total


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _rank() -> int:
    return dist.get_rank() if _processes() > 1 else 0


def _sum_over_processes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The sums of the tensors over all processes, in one message."""
    if _processes() == 1:
        return tensors
    message = torch.cat([tensor.flatten() for tensor in tensors.values()])  # of the widest dtype among them
    dist.all_reduce(message)
    parts = message.split([tensor.numel() for tensor in tensors.values()])
    return {
        name: part.view_as(tensor).to(tensor.dtype)
        for part, (name, tensor) in zip(parts, tensors.items(), strict=True)
    }


def _gather(rows: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks."""
    if _processes() == 1:
        return rows
    gathered = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(_processes())]
    dist.all_gather(gathered, rows.contiguous())
    return torch.cat(gathered)


def _broadcast(*tensors: Tensor) -> None:
    if _processes() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)
