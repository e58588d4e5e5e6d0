"""Fréchet distance (Heusel et al., 2017), https://arxiv.org/abs/1706.08500."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ancestral.errors import UserError, check_type

_SYMMETRIC = 1e-5
"""Share of a covariance that may differ from its transpose: 32 bits leave as much."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Mean and covariance of features: all that the Fréchet distance sees of a set.

    Computed once of a reference, they stand for it in every comparison.

    Raises:
        UserError: the shapes do not fit each other, or the covariance is not symmetric and finite.
    """

    mean: Tensor
    """``(D,)``."""
    covariance: Tensor
    """``(D, D)``."""
    n: int
    """Examples that they were computed of. Only distances at equal n compare."""

    def __post_init__(self) -> None:
        if self.mean.ndim != 1 or self.covariance.shape != 2 * self.mean.shape:
            shapes = f"{tuple(self.mean.shape)} and {tuple(self.covariance.shape)}"
            problem = f"expected a mean (D,) and a covariance (D, D), got {shapes}"
            raise UserError(problem, "compute them with Moments.of")
        asymmetry = (self.covariance - self.covariance.t()).norm()
        if not (self.mean.isfinite().all() and asymmetry <= _SYMMETRIC * self.covariance.norm()):
            problem = "expected a finite mean and a finite symmetric covariance, got others"
            raise UserError(problem, "compute them with Moments.of")

    @classmethod
    def of(cls, features: Tensor) -> "Moments":
        """The moments of features ``(N, D)``, in float64; the covariance divides by N - 1.

        Raises:
            UserError: fewer than 2 examples, or not finite.

        >>> Moments.of(torch.tensor([[0.0], [2.0]])).covariance
        tensor([[2.]], dtype=torch.float64)
        """
        (x,) = checked(2, features=features)
        mean = x.mean(0)
        deviations = x - mean
        return cls(mean=mean, covariance=deviations.t() @ deviations / (len(x) - 1), n=len(x))


def frechet_distance(x: Tensor | Moments, y: Tensor | Moments) -> float:
    r"""Squared 2-Wasserstein distance of the Gaussians with the moments of two sets, at least 0.

    .. math:: |m_x - m_y|^2 + \mathrm{tr}(S_x + S_y - 2 (S_x^{1/2} S_y S_x^{1/2})^{1/2})

    It is in squared units of the features and computed in float64. Over finite sets it is biased upward,
    about as 1/n (Chong & Forsyth, 2020, https://arxiv.org/abs/1911.07023): compare at equal n alone.

    Args:
        x: ``(N, D)``, or its moments.
        y: ``(M, D)``, or its moments.

    Raises:
        UserError: fewer than 2 examples, another D, or not finite.

    >>> round(frechet_distance(torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [5.0]])), 6)
    9.0
    """
    a, b = (given if isinstance(given, Moments) else Moments.of(given) for given in (x, y))
    if a.mean.shape != b.mean.shape:
        problem = f"expected features of one length, got {len(a.mean)} and {len(b.mean)}"
        raise UserError(problem, _ONE_EXTRACTOR)
    device = a.mean.device
    means, covariances = (
        [moment.detach().to(device, torch.float64) for moment in both]
        for both in ((a.mean, b.mean), (a.covariance, b.covariance))
    )
    # The singular values of Sx^½ Sy^½ are the roots of the eigenvalues of Sx^½ Sy Sx^½. Taken directly, an
    # eigenvalue of 0 is rounded to 1e-16 of the largest; by way of the root of one, to 1e-8.
    half_x, half_y = map(_half, covariances)
    cross = torch.linalg.svdvals(half_x.t() @ half_y).sum()
    spread = covariances[0].trace() + covariances[1].trace() - 2 * cross
    return max(0.0, float((means[0] - means[1]).square().sum() + spread))


def _half(covariance: Tensor) -> Tensor:
    """H with H Hᵀ the covariance."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_min(0).sqrt()


_ONE_EXTRACTOR = "compute all features with one extractor"


def checked(least: int, **features: Tensor) -> list[Tensor]:
    """The features in float64, without gradients, on the device of the first.

    Raises:
        UserError: any is not ``(N, D)``, not finite, of fewer than ``least`` examples, or of another D.

    >>> checked(2, real=torch.zeros(3, 8), fake=torch.zeros(1, 8))
    Traceback (most recent call last):
    ancestral.errors.UserError: expected at least 2 examples in fake, got 1; give more examples
    """
    found: list[Tensor] = []
    for name, given in features.items():
        check_type(given, Tensor, f"{name} as a tensor", "convert with torch.as_tensor")
        if given.ndim != 2 or given.shape[1] == 0:
            problem = f"expected {name} of shape (N, D), got {tuple(given.shape)}"
            raise UserError(problem, "give one row of features for each example")
        if len(given) < least:
            problem = f"expected at least {least} examples in {name}, got {len(given)}"
            raise UserError(problem, "give more examples")
        if found and given.shape[1] != found[0].shape[1]:
            problem = f"expected {found[0].shape[1]} features of each example in {name}, got {given.shape[1]}"
            raise UserError(problem, _ONE_EXTRACTOR)
        if broken := int((~given.isfinite()).any(1).sum()):
            problem = (
                f"expected finite features, got NaN or infinity in {broken:,} of {len(given):,} in {name}"
            )
            raise UserError(problem, "look at those examples and at the extractor")
        device = found[0].device if found else given.device
        found.append(given.detach().to(device, torch.float64))
    return found
