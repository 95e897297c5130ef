"""What an attack ascends: one number per image."""

from __future__ import annotations

from torch import Tensor


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Margin of error (1 - 2y) z: positive where the image is misclassified.

    For sign steps on one logit, cross-entropy, CW and unscaled DLR have this gradient's sign; unlike cross-entropy,
    whose float32 gradient is exactly 0 from a margin of about 17, it never saturates.

    Args:
        logits: (N,).
        labels: (N,) in {0, 1}.

    Returns:
        Tensor (N,).
    """
    return (1 - 2 * labels.to(logits.dtype)) * logits
