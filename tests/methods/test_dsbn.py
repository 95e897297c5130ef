"""DSBN and its network: the inserted normalisation changes nothing, and each branch sees its own rows."""

import pytest
import torch
from monai.engines import PrepareBatchExtraInput

from pipeline.attacks import PGD
from pipeline.methods import ARFL, DSBN
from pipeline.networks import AUXILIARY, MAIN, DomainView, vgg16, vgg16_domain
from tests.methods.small import batch, narrow_vgg, rows, trainer_of

NARROW = {"weights": "none", "width": 0.0625, "head": "compact"}
ATTACK = PGD(budget=0.05, steps=2)


def domain_network(**settings):
    network = vgg16_domain(trainable=("features.28", "classifier"), **NARROW | settings)
    network.calibrate(batch(8, 32)["image"])
    return network


def test_inserted_and_calibrated_normalisation_is_the_same_function():
    plain = vgg16(seed=1, engine=False, **NARROW).eval()
    network = vgg16_domain(seed=1, **NARROW).eval()
    images = batch(8, 32)["image"]
    with torch.no_grad():
        expected = plain(images)
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)
        network.calibrate(images[:4])
        for branch in (MAIN, AUXILIARY):
            torch.testing.assert_close(DomainView(network, branch).eval()(images), expected, rtol=1e-3, atol=1e-3)
    assert network.norms["0"].main.running_var.sub(1).abs().max() > 0.01, "the statistics are the data's"


def test_a_vgg16_checkpoint_fits_and_one_of_its_own_keeps_its_norms():
    plain, network = vgg16(seed=2, **NARROW), domain_network(seed=3)
    norms = network.norms.state_dict()
    network.load_state_dict(plain.state_dict())
    assert torch.equal(network.features[28].weight, plain.features[28].weight)
    assert all(torch.equal(norms[name], value) for name, value in network.norms.state_dict().items())
    other = vgg16_domain(**NARROW)
    assert not bool(other.calibrated)
    other.load_state_dict(network.state_dict())
    assert bool(other.calibrated) and torch.equal(other.norms["5"].main.running_mean, norms["5.main.running_mean"])


def test_each_branch_sees_its_rows_alone():
    network = domain_network().train()
    images = batch(6, 32)["image"]
    domain = torch.tensor([False, True, False, True, True, False])
    before = network.norms["0"].main.running_mean.clone()
    with torch.no_grad():
        network(images, domain)
        maps = network.features[0](network.normalise(images))
    for branch, chosen in ((network.norms["0"].main, ~domain), (network.norms["0"].auxiliary, domain)):
        expected = 0.9 * before + 0.1 * maps[chosen].mean(dim=(0, 2, 3))
        torch.testing.assert_close(branch.running_mean, expected)


def test_rows_come_back_in_their_places():
    network = domain_network().eval()
    network.norms["28"].auxiliary.bias.data += 1.0
    images = batch(4, 32)["image"]
    domain = torch.tensor([True, False, False, True])
    with torch.no_grad():
        mixed, main, auxiliary = network(images, domain), network(images), DomainView(network, AUXILIARY)(images)
    torch.testing.assert_close(mixed, torch.where(domain[:, None], auxiliary, main))
    assert not torch.allclose(main, auxiliary)


def test_training_goes_through_prepare_batch_and_the_attack_through_the_auxiliary_branch():
    network = domain_network()
    method = DSBN(network, attack=ATTACK)
    prepare = PrepareBatchExtraInput(extra_keys={"domain": "adversarial"})
    trainer = trainer_of(network, [method, ARFL(network)], items=rows(6, 32), prepare_batch=prepare)
    attacked_through = []
    view = method.auxiliary_branch
    method.auxiliary_branch = lambda: attacked_through.append(1) or view()
    before = network.norms["10"].auxiliary.running_mean.clone()
    trainer.run()
    assert len(attacked_through) == 2
    tracked = [int(getattr(network.norms["10"], branch).num_batches_tracked) for branch in (MAIN, AUXILIARY)]
    assert tracked == [2, 2], "no pass of an attack went through the statistics"
    assert not torch.equal(network.norms["10"].auxiliary.running_mean, before)
    assert network.norms["10"].main.weight.grad is not None and network.features[10].weight.grad is None


def test_epochs_before_the_methods_first_use_the_main_branch():
    network = domain_network()
    method = DSBN(network, attack=ATTACK, start_epoch=2)
    prepare = PrepareBatchExtraInput(extra_keys={"domain": "adversarial"})
    trainer_of(network, [method], items=rows(6, 32), prepare_batch=prepare).run()
    tracked = [int(getattr(network.norms["0"], branch).num_batches_tracked) for branch in (MAIN, AUXILIARY)]
    assert tracked == [2, 0]


def test_the_loss_is_the_sum_of_both_groups():
    network = domain_network()
    method = DSBN(network, attack=ATTACK, loss_function=torch.nn.BCEWithLogitsLoss())
    logits, labels = torch.randn(6, 1), torch.tensor([0.0, 1, 1] * 2)[:, None]
    grown = {"image": torch.zeros(6), "label": labels, "adversarial": torch.arange(6) >= 3}
    expected = method.loss_function(logits[:3], labels[:3]) + method.loss_function(logits[3:], labels[3:])
    torch.testing.assert_close(method.objective(logits, grown), expected)


def test_a_network_without_normalisation_is_refused():
    with pytest.raises(ValueError, match="one normalisation per domain; VGG16 has none"):
        DSBN(narrow_vgg(), attack=ATTACK)
    with pytest.raises(ValueError, match="test_branch 'oracle' is unknown"):
        vgg16_domain(test_branch="oracle", **NARROW)
