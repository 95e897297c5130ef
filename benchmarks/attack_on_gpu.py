"""PGD-7 on VGG16 on a GPU: ours beside torchattacks, in float32, TF32 and bfloat16, interleaved in one process.

    pip install -e .[bench]
    python benchmarks/attack_on_gpu.py --weights vgg16_features.pt --sizes 96,224 --batches 16,64

Both attack the same network (channels-last, eval mode) from the same start with the same steps. Times are medians over
rounds in which every contender runs once, in turn, the device synchronised before and after; F is a forward pass of the
batch in the same arithmetic. On a GPU the network takes its plain layers, so what is shown is that our attack adds
nothing to what a plain loop costs, about 14 F. Before a time is printed, the margins of both must agree.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import torch
import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peers import BUDGET, STEPS, Setting, TwoLogits, load, setting
from pipeline.attacks import PGD, as_logit, margin

CHECK_BUDGET = 3e-4
# Share of the mean margin change by which two attacks at CHECK_BUDGET may differ.
TOLERANCE = {"float32": 0.01, "TF32": 0.02, "bfloat16": 0.1}


def main(
    sizes: Annotated[str, typer.Option(help="sides in pixels")] = "96,224",
    batches: Annotated[str, typer.Option(help="images per batch")] = "16,64",
    rounds: Annotated[int, typer.Option(help="timed rounds")] = 7,
    weights: Annotated[str, typer.Option(help="as in vgg16")] = "none",
    images: Annotated[str | None, typer.Option(help="folder of images; noise if none is given")] = None,
    device: Annotated[str, typer.Option(help="of PyTorch")] = "cuda",
) -> None:
    load(["torchattacks"])
    target = torch.device(device)
    shown = torch.cuda.get_device_name(target) if target.type == "cuda" else device
    print(f"{shown}, torch {torch.__version__}; PGD-{STEPS}, medians of {rounds} rounds")
    print(f"{'':27}{'F':>10}{'ours':>11}{'in F':>7}{'torchattacks':>14}{'ratio':>7}{'memory':>15}")
    for size in map(int, sizes.split(",")):
        for batch in map(int, batches.split(",")):
            case = _moved(setting(size, batch, weights=weights, images=images), target)
            for arithmetic in TOLERANCE:
                with _arithmetic(arithmetic):
                    _check(case, arithmetic)
                    _row(case, arithmetic, rounds)


def _moved(case: Setting, device: torch.device) -> Setting:
    network = case.plain.to(device=device, memory_format=torch.channels_last)
    return Setting(network, network, case.images.to(device), case.labels.to(device))


@contextmanager
def _arithmetic(name: str) -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = name == "TF32"
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def ours(case: Setting, arithmetic: str, budget: float) -> Callable[[], torch.Tensor]:
    attack = PGD(
        budget=budget, steps=STEPS, random_start=False, amp_dtype="bfloat16" if arithmetic == "bfloat16" else None
    )
    return lambda: attack(case.network, case.images, case.labels)


def torchattacks(case: Setting, arithmetic: str, budget: float) -> Callable[[], torch.Tensor]:
    from torchattacks import PGD as Peer

    two = TwoLogits(case.plain).eval()

    def score(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=arithmetic == "bfloat16"):
            return two(images)

    attack = Peer(two, eps=budget, alpha=2.5 * budget / STEPS, steps=STEPS, random_start=False)
    attack.get_logits = lambda inputs, *_args, **_kwargs: score(inputs)
    return lambda: attack(case.images, case.labels)


def _check(case: Setting, arithmetic: str) -> None:
    changes = {}
    with torch.no_grad():
        before = margin(as_logit(case.plain(case.images)), case.labels)
    for contender in (ours, torchattacks):
        attacked = contender(case, arithmetic, CHECK_BUDGET)()
        with torch.no_grad():
            after = margin(as_logit(case.plain(attacked)), case.labels)
        changes[contender.__name__] = float((after - before).mean())
    own, peer = changes["ours"], changes["torchattacks"]
    if own <= 0 or abs(own - peer) > TOLERANCE[arithmetic] * own:
        raise SystemExit(f"{arithmetic}: the attacks differ; mean change of margin {changes}")


def _row(case: Setting, arithmetic: str, rounds: int) -> None:
    def forward() -> None:
        with (
            torch.no_grad(),
            torch.autocast(case.images.device.type, torch.bfloat16, enabled=arithmetic == "bfloat16"),
        ):
            case.plain(case.images)

    runs: dict[str, Callable[[], object]] = {"F": forward}
    runs |= {contender.__name__: contender(case, arithmetic, BUDGET) for contender in (ours, torchattacks)}
    times: dict[str, list[float]] = {name: [] for name in runs}
    memory: dict[str, float] = {}
    cuda = case.images.device.type == "cuda"
    for number in range(rounds + 2):  # the first two warm up
        for name, run in runs.items():
            if cuda:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
                base = torch.cuda.memory_allocated()
            started = time.perf_counter()
            run()
            if cuda:
                torch.cuda.synchronize()
                memory[name] = (torch.cuda.max_memory_allocated() - base) / 2**20
            if number >= 2:
                times[name].append(1e3 * (time.perf_counter() - started))
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = statistics.median(p / o for p, o in zip(times["torchattacks"], times["ours"], strict=True))
    size, batch = case.images.shape[-1], len(case.images)
    used = f"{memory['ours']:.0f}/{memory['torchattacks']:.0f} MB" if cuda else ""
    print(
        f"{f'{size} px, batch {batch}, {arithmetic}':27}{medians['F']:>7.2f} ms{medians['ours']:>8.2f} ms"
        f"{medians['ours'] / medians['F']:>7.1f}{medians['torchattacks']:>11.2f} ms{ratio:>7.2f}{used:>15}",
        flush=True,
    )


if __name__ == "__main__":
    typer.run(main)
