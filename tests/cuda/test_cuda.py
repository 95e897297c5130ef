"""What a GPU must not change: skipped where there is none."""

import copy
import json
import sys
import warnings
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch
from monai.bundle import ConfigWorkflow
from monai.engines import SupervisedTrainer
from torch import nn

from pipeline.attacks import FGSMRS, NFGSM, PGD, margin
from pipeline.methods import ARFL, AdversarialTraining
from pipeline.networks import vgg16

if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

sys.path.insert(0, str(Path(__file__).parents[1]))
from bundles.conftest import BUNDLE, SMALL
from methods.small import narrow_vgg, rows

from tests.attacks.small import LABELS, convolutional, images
from tests.attacks.test_contracts import NAMES, attacks_of
from tests.bundles.test_trust_jobs import TINY

CUDA = torch.device("cuda:0")


@pytest.fixture(autouse=True)
def exact():
    """Float32 as on the CPU; TF32 keeps ten bits of a product's mantissa."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def pair(**settings):
    network = vgg16(weights="none", seed=3, **settings).eval()
    there = copy.deepcopy(network).to(device=CUDA, memory_format=torch.channels_last)
    return network, there


def images_of(count=4, size=64):
    generator = torch.Generator().manual_seed(5)
    return 0.1 + 0.8 * torch.rand(count, 1, size, size, generator=generator), torch.arange(count) % 2


def test_logits_and_gradients_of_the_images_equal_those_of_the_cpu():
    network, there = pair()
    images, _ = images_of()
    results = []
    for net, place in ((network, "cpu"), (there, CUDA)):
        inputs = images.to(place).requires_grad_(True)
        logits = net(inputs)
        (gradient,) = torch.autograd.grad(logits.sum(), inputs)
        results.append((logits.detach().cpu().double(), gradient.cpu().double()))
    (logits, gradient), (logits_there, gradient_there) = results
    torch.testing.assert_close(logits_there, logits, rtol=1e-4, atol=1e-5)
    assert float((gradient_there - gradient).norm() / gradient.norm()) < 2e-2  # a ReLU flips here and there
    assert float((gradient_there.sign() == gradient.sign()).double().mean()) > 0.995


@pytest.mark.parametrize("attack", [PGD(budget=3e-4), NFGSM(budget=3e-4), FGSMRS(budget=3e-4)])
def test_an_attack_gains_as_much_as_on_the_cpu(attack):
    network, there = pair(width=0.5)
    images, labels = images_of()
    start = attack.budget * (2 * torch.rand(images.shape, generator=torch.Generator().manual_seed(1)) - 1)
    gains = []
    for net, place in ((network, "cpu"), (there, CUDA)):
        here = images.to(place)
        attacked = attack(net, here, labels.to(place), noise=start.to(place))
        assert attacked.device == here.device
        with torch.no_grad():
            gains.append(((1 - 2 * labels) * (net(attacked) - net(here))[:, 0].cpu()).double())
    assert float(gains[0].mean()) > 0
    assert float((gains[1] - gains[0]).abs().mean() / gains[0].abs().mean()) < 2e-2


def test_an_attack_under_autocast_stays_within_budget_and_bounds():
    _, there = pair(width=0.5)
    images, labels = images_of()
    images = images.to(CUDA)
    attacked = PGD(budget=0.01, amp_dtype="bfloat16")(there, images, labels.to(CUDA), seed=0)
    assert attacked.dtype == torch.float32
    assert float((attacked - images).abs().max()) <= 0.01 + 1e-6
    assert float(attacked.min()) >= 0 and float(attacked.max()) <= 1
    assert float((attacked != images).float().mean()) > 0.9


@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_every_attack_of_the_strong_test_runs_there_within_budget_and_bounds(number):
    network = convolutional().eval().to(CUDA)
    pictures, labels = images(4, size=(16, 16)).to(CUDA), LABELS.to(CUDA)
    attack = attacks_of(0.02)[number]
    attacked = attack(network, pictures, labels, seed=[1, 2, 3, 4])
    assert attacked.device.type == "cuda" and bool((attacked >= 0).all()) and bool((attacked <= 1).all())
    change = (attacked - pictures).flatten(1)
    size = change.abs().amax(1) if attack.norm == "linf" else change.norm(dim=1)
    assert float(size.max()) <= 0.02 + 1e-5
    before, after = (margin(network(seen)[:, 0], labels).detach() for seen in (pictures, attacked))
    assert bool((after >= before - 1e-4).all()) or attack.name in ("noise", "pgd", "fgsm", "square")


def test_a_start_is_the_same_for_an_image_in_every_batch():
    network = narrow_vgg().eval().to(CUDA)
    images, labels = images_of(4, 32)
    images, labels = images.to(CUDA), labels.to(CUDA)
    attack = PGD(budget=0.01, steps=1)
    together = attack(network, images, labels, seed=[7, 8, 9, 10])
    alone = attack(network, images[2:3], labels[2:3], seed=[9])
    assert float(((together[2:3] - alone).abs() > 1e-6).float().mean()) < 0.01


METHODS = sorted(path.stem for path in (BUNDLE / "methods").glob("*.json"))


def job(root, *overlays, **changes):
    # Phantoms and prepared images are shared by the tests of this module.
    places = {"dataset_dir": str(root / "phantoms"), "store_dir": str(root / "store"), "output_dir": str(root / "runs")}
    name = "-".join(overlays).replace("/", "-")
    settings = SMALL | places | {"device": CUDA, "max_epochs": 1, "steps": 3, "run_name": name}
    files = [str(BUNDLE / name) for name in ("train.json", *overlays)]
    work = ConfigWorkflow(config_file=files, workflow_type="train", logging_file=False, **settings | changes)
    work.initialize()
    work.run()
    return root / "runs" / str((settings | changes)["run_name"])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("cuda")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_is_scored_on_the_gpu(root, method):
    run = job(root, f"methods/{method}.json")
    report = json.loads((run / "report.json").read_text())
    assert report
    weights = torch.load(run / "checkpoints" / "best.pt", map_location="cpu", weights_only=True)
    assert all(torch.isfinite(value).all() for value in weights["network"].values())


@pytest.mark.parametrize("term", ["awp", "ema", "arfl"])
def test_terms_and_amp_run_on_the_gpu(root, term):
    job(root, "methods/trades.json", f"terms/{term}.json", amp=True, run_name=f"amp-{term}")


def test_the_strong_test_certificates_and_dicom_attack_run_on_the_gpu(root):
    report = json.loads((job(root, effort=TINY, run_name="strong") / "report.json").read_text())
    assert {report[name]["status"] for name in ("strong", "gates", "dicom_attack")} == {"given"}


def test_the_same_command_gives_the_same_scores(root):
    scores = [(job(root, run_name=f"again{number}") / "scores.csv").read_text() for number in range(2)]
    assert scores[0] == scores[1]


def test_a_network_trained_there_scores_alike_on_the_cpu(root):
    run = job(root, run_name="moved")
    job(root, "evaluate.json", run_name="moved", device=torch.device("cpu"), resume=False)
    tables = [pd.read_csv(folder / "scores.csv") for folder in (run, root / "runs" / "moved-evaluation")]
    clean = [table[table["attack_id"] == "clean"].sort_values("image_id")["logit"].to_numpy() for table in tables]
    assert len(clean[0]) == len(clean[1]) > 0
    assert abs(clean[0] - clean[1]).max() < 1e-3


def test_a_training_step_waits_for_the_device_at_few_places():
    """PyTorch warns at every operation that makes the host wait. One does, in front of an attack."""
    network = narrow_vgg().to(CUDA)
    method = AdversarialTraining(network, attack=PGD(budget=0.01, steps=7))
    items = rows(12, size=32)
    loader = torch.utils.data.DataLoader(items, batch_size=4)
    trainer = SupervisedTrainer(
        device=CUDA, max_epochs=1, train_data_loader=loader, network=network,
        optimizer=torch.optim.AdamW(network.parameters(), fused=True), loss_function=nn.BCEWithLogitsLoss(),
        train_handlers=[method, ARFL(network)], decollate=False,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            trainer.run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = Counter(Path(w.filename).name for w in caught if "synchroniz" in str(w.message))
    per_step = {place: count / 3 for place, count in waits.items()}
    # The check of the bounds; the means of an epoch are read at its end.
    assert per_step.pop("pgd.py", 0) <= 1
    per_step.pop("history.py", None)
    assert sum(per_step.values()) < 1, per_step
