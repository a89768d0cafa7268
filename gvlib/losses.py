"""Losses: (logits, labels) -> one loss per sample; whoever uses them takes the mean."""

import torch.nn.functional as F
from torch import Tensor

__all__ = ["cross_entropy"]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy: -log softmax(logits)[label], in nats.

    Args:
        logits: (n, classes).
        labels: (n,) integers in [0, classes).

    Returns:
        (n,), one loss per sample.

    >>> import torch
    >>> cross_entropy(torch.zeros(1, 4), torch.tensor([2])).exp()
    tensor([4.])
    """
    return F.cross_entropy(logits, labels, reduction="none")
