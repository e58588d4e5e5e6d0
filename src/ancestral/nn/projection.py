"""The projection head of a critic (Miyato & Koyama, 2018), https://arxiv.org/abs/1802.05637."""

from torch import Tensor, nn


class ProjectionHead(nn.Module):
    r"""Value :math:`w^\top h + b + v_y^\top h` of features h and a class y (equation 3).

    Args:
        features: numbers of h.
        classes: 0 for none, without the last term.

    >>> import torch
    >>> head = ProjectionHead(2, 3)
    >>> head(torch.zeros(4, 2), torch.tensor([0, 1, 2, 0])).shape
    torch.Size([4])
    """

    def __init__(self, features: int, classes: int = 0) -> None:
        super().__init__()
        self.output = nn.Linear(features, 1)
        self.classes = nn.Embedding(classes, features) if classes else None

    def forward(self, h: Tensor, labels: Tensor | None = None) -> Tensor:
        """Features ``(N, features)`` and classes ``(N,)`` to ``(N,)``."""
        value: Tensor = self.output(h).squeeze(1)
        return value if self.classes is None else value + (self.classes(labels) * h).sum(1)
