"""PGD-7 on VGG16: ours beside torchattacks, foolbox, ART and a plain loop, interleaved in one process.

    pip install -e .[bench]
    python benchmarks/attack_speed.py --sizes 160 --batches 4 --weights vgg16_features.pt --images FOLDER

Times are medians over rounds in which every contender runs once, in turn. F is the plain network's fastest forward
pass of one image at this size (batches 1 and 4, NCHW and NHWC), so "in F" is how many such passes an attack costs per
image; a loop of direct convolutions costs about 14, seven forward and seven back to the images. The peers and the plain
loop get the network in the layout in which it is faster forward and back at this size and batch. Forward passes that
only count successes (ART, foolbox) are left out. The largest resident memory is measured in a process of its own for
each contender: what its attack adds to the process that holds the network, the images and the imported packages.

Before any time is printed, all contenders must reach the same margins at a budget of 3e-4: the mean change of margin
over the batch within 1%. At the full budget of 0.01 the paths are chaotic: one sign of a vanishing gradient that rounds
the other way leads to another path, and the plain network in float32 ends 11% from itself in float64 in the mean of
four DDSM images, further than the engine does (3%).

`--profile` then shows where our attack's time goes, by torch's profiler, on the last size and batch: an operation's own
time, without that of those it calls. Compiled loops stand under the function that calls them.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peers import STEPS, Setting, contenders, faster_layout, forward_ms, in_layout, setting
from pipeline.attacks import as_logit, margin

Attack = Callable[[Setting], torch.Tensor]

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
    profile: Annotated[bool, typer.Option(help="show where our time goes")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON file")] = None,
    probe: Annotated[str, typer.Option(hidden=True)] = "",
    layout: Annotated[str, typer.Option(hidden=True)] = "NCHW",
) -> None:
    torch.set_num_threads(threads)
    if probe:
        case = in_layout(setting(int(sizes), int(batches), weights=weights, images=images), layout)
        print(json.dumps(_added_memory(case, probe)))
        return
    attacks = contenders([OURS, *filter(None, names.split(","))])
    rows: list[dict[str, Any]] = []
    for size in map(int, sizes.split(",")):
        unit = min(forward_ms(setting(size, batch, weights=weights, images=images)) for batch in (1, 4))
        for batch in map(int, batches.split(",")):
            case = setting(size, batch, weights=weights, images=images)
            layout = faster_layout(case)
            row = _compare(in_layout(case, layout), attacks, rounds)
            row = {"size": size, "batch": batch, "rounds": rounds, "forward_ms": unit, "layout": layout, **row}
            if memory:
                row["memory_mb"] = {
                    name: _probe(name, size, batch, weights, images, threads, layout) for name in list(attacks)[:2]
                }
            rows.append(row)
            _print(row)
            if out is not None:
                out.write_text(json.dumps(rows, indent=1) + "\n")
        if memory:
            _print_memory([row for row in rows if row["size"] == size])
    if profile:
        _profile(case)


def _compare(case: Setting, attacks: dict[str, Attack], rounds: int) -> dict[str, Any]:
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


def _probe(name: str, size: int, batch: int, weights: str, images: str | None, threads: int, layout: str) -> float:
    command = [sys.executable, __file__, "--probe", name, "--sizes", str(size), "--batches", str(batch)]
    command += ["--layout", layout]
    command += ["--weights", weights, "--threads", str(threads)] + ([] if images is None else ["--images", images])
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(answer.stdout.strip().splitlines()[-1]))


def _added_memory(case: Setting, name: str) -> float:
    """Megabytes that the attack adds to the resident memory, at its highest (Linux)."""
    with torch.no_grad():
        case.plain(case.images[:1])  # libraries' own buffers
    attack = contenders([name])[name]  # imports the package before the memory is read
    started = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    attack(case)
    return (_status("VmHWM") - started) / 1e3


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(field)).split()[1])


def _print(row: dict[str, Any]) -> None:
    times, ratios, unit, shares = row["ms_per_image"], row["ratio"], row["forward_ms"], row["margin_difference"]
    print(
        f"{row['size']} x {row['size']}, batch {row['batch']}, PGD-{STEPS}, median of {row['rounds']} rounds; "
        f"F = {unit:.1f} ms; peers in {row['layout']}"
    )
    print(f"  {'':14}{'ms/image':>10}{'in F':>8}{'ours is':>10}{'margins':>10}")
    for name in times:
        speed = "" if name == OURS else f"{ratios[name]:.2f}x"
        print(f"  {name:14}{times[name]:10.0f}{times[name] / unit:8.1f}{speed:>10}{shares[name]:10.2%}")
    for name, value in row.get("memory_mb", {}).items():
        print(f"  memory added by {name}: {value:.0f} MB")
    sys.stdout.flush()


def _print_memory(rows: list[dict[str, Any]]) -> None:
    """The straight line through the memory of the two largest batches."""
    if len(rows) < 2:
        return
    small, large = sorted(rows, key=lambda row: row["batch"])[-2:]
    if small["batch"] == large["batch"]:
        return
    for name, most in large["memory_mb"].items():
        each = (most - small["memory_mb"][name]) / (large["batch"] - small["batch"])
        fixed = most - each * large["batch"]
        print(f"{large['size']} x {large['size']}, memory of {name}: {each:.0f} MB per image, {fixed:.0f} MB fixed")


def _profile(case: Setting) -> None:
    attack = contenders([OURS])[OURS]
    attack(case)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as found:
        attack(case)
    events = found.key_averages(group_by_input_shape=True)
    whole = sum(event.self_cpu_time_total for event in events)
    print(f"own time of operations in our attack, {tuple(case.images.shape)}:")
    for event in sorted(events, key=lambda event: -event.self_cpu_time_total)[:12]:
        shapes = " x ".join(str(shape) for shape in event.input_shapes if shape)
        print(f"  {event.self_cpu_time_total / whole:6.1%}  {event.key}  {shapes}"[:120])


if __name__ == "__main__":
    typer.run(main)
