"""PGD-7 on VGG16: ours beside torchattacks, foolbox, ART and a plain loop, interleaved in one process.

    pip install -e .[bench]
    python benchmarks/attack_speed.py --sizes 160 --batches 4 --weights vgg16_features.pt --images FOLDER

Times are medians over rounds in which every contender runs once, in turn. F is the plain network's fastest forward
pass of one image at this size (over batches and layouts), so "in F" is how many such passes an attack costs per image;
a loop of direct convolutions costs at least 14. The largest resident memory is measured in a process of its own for
each contender: what its attack adds to the process that holds the network and the images.

Before any time is printed, all contenders must reach the same margins at a budget of 3e-4: the mean change of margin
over the batch within 1%. At the full budget of 0.01 the paths are chaotic: one sign of a vanishing gradient that rounds
the other way leads to another path, and the plain network in float32 ends 11% from itself in float64 in the mean of
four DDSM images, further than the engine does (3%).
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import torch
import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peers import STEPS, Setting, contenders, setting
from pipeline.attacks import as_logit, margin

OURS = "ours"
CHECK_BUDGET = 3e-4


def main(
    sizes: Annotated[str, typer.Option(help="sides in pixels")] = "96,160,224",
    batches: Annotated[str, typer.Option(help="images per batch")] = "1,4,16",
    rounds: Annotated[int, typer.Option(help="timed rounds")] = 5,
    names: Annotated[str, typer.Option(help="contenders besides ours")] = "torchattacks,foolbox,art,plain loop",
    weights: Annotated[str, typer.Option(help="as in vgg16")] = "none",
    images: Annotated[str | None, typer.Option(help="folder of images")] = None,
    threads: int = 2,
    memory: Annotated[bool, typer.Option(help="measure memory too")] = True,
    out: Annotated[Path | None, typer.Option(help="JSON file")] = None,
    probe: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    torch.set_num_threads(threads)
    chosen = [OURS, *names.split(",")]
    if probe:
        size, batch = int(sizes), int(batches)
        print(json.dumps(_added_memory(setting(size, batch, weights=weights, images=images), probe)))
        return
    rows = []
    for size in map(int, sizes.split(",")):
        unit = min(_forward(setting(size, batch, weights=weights, images=images)) for batch in (1, 4))
        for batch in map(int, batches.split(",")):
            row = _compare(setting(size, batch, weights=weights, images=images), chosen, rounds)
            row = {"size": size, "batch": batch, "forward_ms": unit, **row}
            if memory:
                row["memory_mb"] = {
                    name: _probe(name, size, batch, weights, images, threads) for name in (OURS, *names.split(",")[:1])
                }
            rows.append(row)
            _print(row)
            if out is not None:
                out.write_text(json.dumps(rows, indent=1) + "\n")


def _compare(case: Setting, chosen: list[str], rounds: int) -> dict[str, object]:
    attacks = contenders(chosen)
    easier = dataclasses.replace(case, budget=CHECK_BUDGET)
    difference = _check_margins(easier, {name: attack(easier) for name, attack in attacks.items()})  # also the warm-up
    times: dict[str, list[float]] = {name: [] for name in attacks}
    for _ in range(rounds):
        for name, attack in attacks.items():
            started = time.perf_counter()
            attack(case)
            times[name].append(time.perf_counter() - started)
    per_image = {name: statistics.median(values) * 1e3 / len(case.images) for name, values in times.items()}
    # Rounds are pairs: a slow moment of the machine hits neighbours alike.
    ratios = {
        name: statistics.median(theirs / own for theirs, own in zip(times[name], times[OURS], strict=True))
        for name in attacks
    }
    return {"ms_per_image": per_image, "ratio": ratios, "margin_difference": difference}


def _check_margins(case: Setting, results: dict[str, torch.Tensor]) -> dict[str, float]:
    """How far each contender's mean change of margin is from the median contender's, as a share of it."""
    network = case.plain
    with torch.no_grad():
        before = margin(as_logit(network(case.images)), case.labels)
        change = {
            name: float((margin(as_logit(network(images)), case.labels) - before).mean())
            for name, images in results.items()
        }
    reference = statistics.median(change.values())
    shares = {name: abs(value - reference) / abs(reference) for name, value in change.items()}
    wrong = {name: f"{share:.2%}" for name, share in shares.items() if not share < 0.01}
    if wrong:
        raise SystemExit(f"mean changes of margin differ by more than 1%: {wrong}; the comparison would not be fair")
    return shares


def _forward(case: Setting) -> float:
    """Milliseconds of the plain network's forward pass of one image, the fastest of ten in either layout."""
    best = float("inf")
    with torch.no_grad():
        for layout in (torch.contiguous_format, torch.channels_last):
            network, images = case.plain.to(memory_format=layout), case.images.contiguous(memory_format=layout)
            for _ in range(10):
                started = time.perf_counter()
                network(images)
                best = min(best, time.perf_counter() - started)
    return best * 1e3 / len(case.images)


def _probe(name: str, size: int, batch: int, weights: str, images: str | None, threads: int) -> float:
    command = [sys.executable, __file__, "--probe", name, "--sizes", str(size), "--batches", str(batch)]
    command += ["--weights", weights, "--threads", str(threads)] + ([] if images is None else ["--images", images])
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(answer.stdout.strip().splitlines()[-1]))


def _added_memory(case: Setting, name: str) -> float:
    """Megabytes that the attack adds to the resident memory, at its highest (Linux)."""
    with torch.no_grad():
        case.plain(case.images[:1])  # libraries' own buffers
    attack = contenders([name])[name]
    started = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    attack(case)
    return (_status("VmHWM") - started) / 1e3


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(field)).split()[1])


def _print(row: dict[str, object]) -> None:
    times, ratios, unit = row["ms_per_image"], row["ratio"], row["forward_ms"]
    assert isinstance(times, dict) and isinstance(ratios, dict) and isinstance(unit, float)
    print(f"{row['size']} x {row['size']}, batch {row['batch']}, PGD-{STEPS}; F = {unit:.1f} ms")
    print(f"  {'':14}{'ms/image':>10}{'in F':>8}{'ours is':>10}{'margins':>10}")
    shares = row["margin_difference"]
    assert isinstance(shares, dict)
    for name in times:
        speed = "" if name == OURS else f"{ratios[name]:.2f}x"
        print(f"  {name:14}{times[name]:10.0f}{times[name] / unit:8.1f}{speed:>10}{shares[name]:10.2%}")
    for name, value in row.get("memory_mb", {}).items():  # type: ignore[attr-defined]
        print(f"  memory added by {name}: {value:.0f} MB")
    sys.stdout.flush()


if __name__ == "__main__":
    typer.run(main)
