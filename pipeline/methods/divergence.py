"""Kullback-Leibler divergence between two predictions of one logit each."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def binary_divergence(reference: Tensor, logits: Tensor) -> Tensor:
    """KL(p || q) of Bernoulli distributions with p = sigmoid(reference) and q = sigmoid(logits).

    Computed in log space, so that it has a gradient where a probability rounds to 0 or 1.

    Args:
        reference: (N,).
        logits: (N,).

    Returns:
        Tensor (N,), at least 0.
    """
    p = torch.sigmoid(reference)
    positive = p * (logsigmoid(reference) - logsigmoid(logits))
    return positive + (1 - p) * (logsigmoid(-reference) - logsigmoid(-logits))
