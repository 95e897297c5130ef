"""Networks and images for tests of attacks: a linear score with its closed forms, and a small convolutional network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LABELS = torch.tensor([0.0, 1.0, 1.0, 0.0])


def images(count: int = 4, *, low: float = 0.0, high: float = 1.0, size: tuple[int, int] = (6, 5)) -> Tensor:
    """Uniform in [low, high], so that the bounds clip some pixels of a budget."""
    return low + (high - low) * torch.rand(count, 1, *size, generator=torch.Generator().manual_seed(1))


class Linear(nn.Module):
    """Logit <w, x> + bias, (N, 1)."""

    def __init__(self, bias: float | Tensor = 0.0, *, size: tuple[int, int] = (6, 5), seed: int = 2) -> None:
        super().__init__()
        weights = torch.randn(1, *size, generator=torch.Generator().manual_seed(seed))
        self.weights = nn.Parameter(weights + 0.1 * weights.sign())  # no weight near zero
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        return ((x * self.weights).sum(dim=(1, 2, 3)) + self.bias)[:, None]


def convolutional(seed: int = 3, *, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """A network with ReLUs and a pooling for images (N, 1, 16, 16), steep enough to be attacked."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 1),
    )  # fmt: skip
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.6)
    return network.to(dtype)


def along(direction: Tensor, low: Tensor, high: Tensor, radius: Tensor) -> Tensor:
    """clamp(t direction, low, high) of the length `radius` (N,), or the box's corner: by 200 bisections in float64."""
    direction, low, high = direction.double(), low.double(), high.double()
    shape = (-1, *[1] * (direction.ndim - 1))
    small, large = torch.zeros(len(direction)).double(), torch.full((len(direction),), 1e6).double()
    for _ in range(200):
        middle = (small + large) / 2
        longer = torch.clamp(middle.reshape(shape) * direction, low, high).flatten(1).norm(dim=1) > radius
        small, large = torch.where(longer, small, middle), torch.where(longer, middle, large)
    return torch.clamp(small.reshape(shape) * direction, low, high)


def worst_linear(score: Linear, x: Tensor, labels: Tensor, budget: float | Tensor, norm: str) -> Tensor:
    """The worst image of a linear score inside budget and [0, 1], in closed form."""
    shape = (-1, *[1] * (x.ndim - 1))
    uphill = (1 - 2 * labels).reshape(shape) * score.weights.detach()
    budget = torch.as_tensor(budget).expand(len(x))
    if norm == "linf":
        return (x + budget.reshape(shape) * uphill.sign()).clamp(0, 1)
    return (x.double() + along(uphill, -x, 1 - x, budget)).float()
