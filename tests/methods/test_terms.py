"""AWP and EMA: what they change, and that they change nothing else."""

import copy

import pytest
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from torch import nn

from pipeline.attacks import PGD
from pipeline.methods import ARFL, AWP, EMA, AdversarialTraining, PlugInError
from tests.methods.small import narrow_vgg, rows, smooth_network, trainer_of

ATTACK = PGD(budget=0.05, steps=2)


def state(network):
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def equal(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def test_awp_puts_the_weights_back_bit_by_bit_before_the_optimiser_acts():
    network = smooth_network()
    awp = AWP(network, gamma=0.05)
    trainer = trainer_of(network, [AdversarialTraining(network, attack=ATTACK), awp])
    before, moved, restored = [], [], []
    trainer.add_event_handler(Events.GET_BATCH_COMPLETED, lambda _: before.append(state(network)))
    trainer.add_event_handler(IterationEvents.FORWARD_COMPLETED, lambda _: moved.append(state(network)))
    trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, lambda _: restored.append(state(network)))
    trainer.run()
    for start, there, back in zip(before, moved, restored, strict=True):
        assert equal(start, back) and not equal(start, there)


def test_awp_is_the_algorithm_written_by_hand():
    network, other = smooth_network(), smooth_network()
    items = rows(3)
    trainer_of(network, [AdversarialTraining(network, standard_ratio=1), AWP(network, gamma=0.05)], items=items).run()
    x, y = torch.stack([row["image"] for row in items]), torch.stack([row["label"] for row in items])
    loss, perturbed = nn.BCEWithLogitsLoss(), copy.deepcopy(other)
    loss(perturbed(x), y).backward()
    for weight in perturbed.parameters():
        if weight.ndim > 1:
            weight.data += 0.05 * weight.data.norm() * weight.grad / weight.grad.norm()
    perturbed.zero_grad()
    loss(perturbed(x), y).backward()
    for weight, there, ours in zip(other.parameters(), perturbed.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours.detach(), weight.detach() - 0.1 * there.grad, rtol=1e-4, atol=1e-6)


def test_awp_leaves_batch_statistics_and_frozen_layers_alone():
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)
    )
    network[0].requires_grad_(False)
    awp = AWP(network)
    trainer = trainer_of(network, [AdversarialTraining(network, standard_ratio=1), awp], items=rows(3))
    kept = []
    trainer.add_event_handler(IterationEvents.FORWARD_COMPLETED, lambda _: kept.extend(awp._kept))
    trainer.run()
    assert int(network[1].num_batches_tracked) == 1
    assert [weight is network[5].weight for weight, _ in kept] == [True]


def test_awp_composes_with_arfl_on_a_frozen_prefix():
    network = narrow_vgg()
    handlers = [
        AdversarialTraining(network, attack=ATTACK), ARFL(network, weight=2.0), AWP(network, gamma=0.01), EMA(network)
    ]  # fmt: skip
    trainer = trainer_of(network, handlers, items=rows(6, 32))
    trainer.run()
    assert {"robust_loss", "classification_loss"} <= trainer.state.metrics.keys()


def test_ema_is_the_moving_average_and_training_goes_on_from_the_last_weights():
    network, plain = smooth_network(), smooth_network()
    ema = EMA(network, decay=0.5)
    seen = []
    trainer = trainer_of(network, [AdversarialTraining(network, standard_ratio=1), ema], epochs=3)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda _: seen.append(state(network)))
    shown = []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: shown.append(state(network)))
    trainer.run()
    untouched = []
    other = trainer_of(plain, [AdversarialTraining(plain, standard_ratio=1)], epochs=3)
    other.add_event_handler(Events.ITERATION_COMPLETED, lambda _: untouched.append(state(plain)))
    other.run()
    assert all(equal(a, b) for a, b in zip(seen, untouched, strict=True)), "the average does not act on training"
    average = state(smooth_network())
    for step, weights in enumerate(seen, start=1):
        decay = min(0.5, (1 + step) / (10 + step))
        average = {name: decay * average[name] + (1 - decay) * weights[name] for name in average}
        if step % 2 == 0:  # two steps an epoch
            for name in average:
                torch.testing.assert_close(average[name], shown[step // 2 - 1][name])


def test_ema_resumes_from_its_state():
    network = smooth_network()
    ema = EMA(network, decay=0.9)
    trainer_of(network, [AdversarialTraining(network, standard_ratio=1), ema], epochs=2).run()
    saved, weights = ema.state_dict(), state(network)

    def go_on(from_saved):
        again = smooth_network()
        again.load_state_dict(weights)
        term = EMA(again, decay=0.9)
        if from_saved:
            term.load_state_dict(copy.deepcopy(saved))
        trainer_of(again, [AdversarialTraining(again, standard_ratio=1), term], epochs=1).run()
        return state(again)

    whole = smooth_network()
    trainer_of(whole, [AdversarialTraining(whole, standard_ratio=1), EMA(whole, decay=0.9)], epochs=3).run()
    assert equal(go_on(True), state(whole)) and not equal(go_on(False), state(whole))


def test_terms_come_after_the_method_and_arguments_are_checked():
    network = smooth_network()
    with pytest.raises(PlugInError, match="attach the method before its terms"):
        trainer_of(network, [AWP(network), AdversarialTraining(network, standard_ratio=1)])
    with pytest.raises(ValueError, match="gamma is 0"):
        AWP(network, gamma=0)
    with pytest.raises(ValueError, match="decay is 1"):
        EMA(network, decay=1)
