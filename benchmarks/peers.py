"""PGD as four other tools write it, on the same network, images, start, steps and budget as ours."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.attacks import PGD
from pipeline.networks import VGG16, vgg16

BUDGET = 0.01
STEPS = 7
# Layout of maps and filters in memory.
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
# What each contender imports; a peer comes with the extra `bench`.
MODULES = {
    "torchattacks": ("torchattacks",),
    "foolbox": ("foolbox", "foolbox.attacks"),
    "art": ("art.attacks.evasion", "art.estimators.classification"),
}


@dataclass
class Setting:
    """One row of the benchmark.

    `images` (N, 1, H, W) already hold the uniform noise of a random start, which every contender then starts from
    without another. So all walk the same path, and no two neighbours are equal: where they are (a blank background),
    the gradient of a maximum pooling is any of several, and implementations differ.

    `plain` is the same network without the engine, for the peers; it shares the weights.
    """

    network: VGG16
    plain: VGG16
    images: Tensor
    labels: Tensor
    budget: float = BUDGET

    @property
    def step_size(self) -> float:
        return 2.5 * self.budget / STEPS


def setting(size: int, batch: int, *, weights: str = "none", images: str | None = None, seed: int = 0) -> Setting:
    """Build network and images.

    Args:
        size: pixels of a side.
        batch: number of images.
        weights: as in `vgg16`.
        images: folder of PNG or JPEG files, searched with its subfolders; None makes noise with the power-law
            spectrum of mammograms (exponent 3).
        seed: of weights, noise and labels.
    """
    generator = torch.Generator().manual_seed(seed)
    network = vgg16(weights=weights, seed=seed).eval()
    pictures = _spectral_noise(size, batch, seed) if images is None else _read(images, size, batch)
    pictures = pictures + BUDGET * (2 * torch.rand(pictures.shape, generator=generator) - 1)
    labels = torch.arange(batch) % 2
    plain = copy.copy(network)
    plain.engine = None
    return Setting(network, plain, pictures.clamp(0, 1), labels)


def in_layout(setting: Setting, layout: str) -> Setting:
    """The setting with a plain network whose convolutions run in this layout, one of `LAYOUTS`."""
    plain = copy.copy(setting.plain)
    plain._modules = dict(plain._modules)
    # A copy: our network keeps its filters as they are. One-channel images are the same in both layouts.
    plain.features = copy.deepcopy(plain.features).to(memory_format=LAYOUTS[layout])
    return dataclasses.replace(setting, plain=plain)


def faster_layout(setting: Setting, repeats: int = 3) -> str:
    """The layout in which the plain network is faster forward and back to the images, as a peer's step runs it."""
    best = dict.fromkeys(LAYOUTS, float("inf"))
    cases = {layout: in_layout(setting, layout) for layout in LAYOUTS}
    for _ in range(repeats + 1):  # the first warms up, and can only be slower
        for layout, case in cases.items():
            images = case.images.clone().requires_grad_(True)
            started = time.perf_counter()
            torch.autograd.grad(case.plain(images).sum(), images)
            best[layout] = min(best[layout], time.perf_counter() - started)
    return min(best, key=best.__getitem__)


def forward_ms(setting: Setting, repeats: int = 10) -> float:
    """Milliseconds of the plain network's forward pass of one image: the fastest pass in either layout."""
    best = float("inf")
    with torch.no_grad():
        for layout in LAYOUTS:
            network = in_layout(setting, layout).plain
            for _ in range(repeats):
                started = time.perf_counter()
                network(setting.images)
                best = min(best, time.perf_counter() - started)
    return best * 1e3 / len(setting.images)


def load(names: list[str]) -> None:
    """Import what these contenders need, so that neither a time nor a memory figure contains it.

    Raises:
        SystemExit: a package is missing.
    """
    for name in names:
        for module in MODULES.get(name, ()):
            try:
                importlib.import_module(module)
            except ModuleNotFoundError as error:
                raise SystemExit(
                    f"{name} cannot be imported, {error.name} is missing: install the extra `bench` with "
                    "`pip install -e .[bench]`"
                ) from error


def contenders(names: list[str]) -> dict[str, Callable[[Setting], Tensor]]:
    """Attack functions by name, with their packages imported.

    Raises:
        SystemExit: unknown name, or a package is missing.
    """
    known = {"ours": ours, "torchattacks": torchattacks, "foolbox": foolbox, "art": art, "plain loop": plain_loop}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"contenders {unknown} are unknown; allowed are {list(known)}")
    load(names)
    return {name: known[name] for name in names}


class TwoLogits(nn.Module):
    """Logits [0, z], as libraries for many classes need them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logit = self.network(images)
        return torch.cat([torch.zeros_like(logit), logit], dim=1)


def ours(setting: Setting) -> Tensor:
    attack = PGD(budget=setting.budget, steps=STEPS, random_start=False)
    return attack(setting.network, setting.images, setting.labels)


def torchattacks(setting: Setting) -> Tensor:
    from torchattacks import PGD as Peer

    model, step_size = TwoLogits(setting.plain).eval(), setting.step_size
    attack = Peer(model, eps=setting.budget, alpha=step_size, steps=STEPS, random_start=False)
    return attack(setting.images, setting.labels)


def foolbox(setting: Setting) -> Tensor:
    from foolbox import PyTorchModel
    from foolbox.attacks import LinfPGD

    model = PyTorchModel(TwoLogits(setting.plain).eval(), bounds=(0, 1), device="cpu")
    attack = LinfPGD(abs_stepsize=setting.step_size, steps=STEPS, random_start=False)
    # `run` is the attack itself; calling the object adds a forward pass that counts successes. So does ART.
    return attack.run(model, setting.images, setting.labels, epsilon=setting.budget)


def art(setting: Setting) -> Tensor:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        TwoLogits(setting.plain).eval(),
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(setting.images.shape[1:]),
        nb_classes=2,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    attack = ProjectedGradientDescentPyTorch(
        classifier,
        eps=setting.budget,
        eps_step=setting.step_size,
        max_iter=STEPS,
        batch_size=len(setting.images),
        verbose=False,
    )
    # `generate` ends with two forward passes that count successes for a line of its log; they are left out, as are
    # those of the other contenders. ART 1.20.1 has no switch for it.
    module = "art.attacks.evasion.projected_gradient_descent.projected_gradient_descent_pytorch"
    with mock.patch(f"{module}.compute_success", return_value=0.0):
        return torch.from_numpy(attack.generate(setting.images.numpy(), np.eye(2)[setting.labels.numpy()]))


def plain_loop(setting: Setting) -> Tensor:
    """As a MONAI user writes it: binary cross-entropy and `backward()`, parameter gradients included."""
    network, images = setting.plain, setting.images
    loss_function = nn.BCEWithLogitsLoss()
    labels = setting.labels.float()[:, None]
    adversarial = images.clone()
    for _ in range(STEPS):
        adversarial.requires_grad_(True)
        network.zero_grad()
        loss_function(network(adversarial), labels).backward()
        assert adversarial.grad is not None
        moved = adversarial.detach() + setting.step_size * adversarial.grad.sign()
        adversarial = images + (moved - images).clamp(-setting.budget, setting.budget)
        adversarial = adversarial.clamp(0, 1).detach()
    network.zero_grad()
    return adversarial


def _spectral_noise(size: int, batch: int, seed: int) -> Tensor:
    generator = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(generator.standard_normal((batch, size, size))) * frequency**-1.5
    values = np.fft.irfft2(spectrum, s=(size, size))
    values = 0.5 + 0.15 * values / values.std(axis=(1, 2), keepdims=True)
    return torch.from_numpy(values.clip(0, 1)).float()[:, None]


def _read(folder: str, size: int, batch: int) -> Tensor:
    from PIL import Image

    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if len(paths) < batch:
        raise SystemExit(f"{folder} holds {len(paths)} images; {batch} are needed")
    pictures = [Image.open(path).convert("L").resize((size, size)) for path in paths[:batch]]
    return torch.stack([torch.from_numpy(np.asarray(picture).astype(np.float32) / 255)[None] for picture in pictures])
