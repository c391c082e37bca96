"""Schedules: closed forms, and what the loss makes of them."""

import pytest
import torch

from espnet_gmot.config import GMOTConfig
from espnet_gmot.loss import GMOTLoss
from espnet_gmot.schedule import Now, at


def test_without_a_schedule_everything_holds_at_once() -> None:
    assert at(GMOTConfig(), 1) == Now(1.0, 0.5, GMOTConfig().epsilon)


def test_weights_rise_hold_and_fall() -> None:
    config = GMOTConfig(warmup=4, hold=2, decay=4)
    weights = [at(config, time).weight for time in range(12)]
    assert weights == [0, 0.25, 0.5, 0.75, 1, 1, 1, 0.75, 0.5, 0.25, 0, 0]


def test_alpha_rises_and_epsilon_shrinks_geometrically() -> None:
    config = GMOTConfig(alpha=0.8, alpha_warmup=4, epsilon=0.01, epsilon_start=1.0, epsilon_decay=2)
    assert [at(config, time).alpha for time in (1, 2, 4, 9)] == pytest.approx([0.2, 0.4, 0.8, 0.8])
    assert [at(config, time).epsilon for time in (1, 2, 3, 9)] == pytest.approx([1.0, 0.1, 0.01, 0.01])


@pytest.mark.parametrize(("unit", "times"), [("step", [1, 2, 3, 4]), ("epoch", [1, 1, 2, 2])])
def test_steps_and_epochs_are_counted_and_resumed(unit: str, times: list[int]) -> None:
    config = GMOTConfig(teacher_width=3, schedule_unit=unit, warmup=4, backend="torch")
    batch = torch.randn(1, 4, 2), torch.tensor([4]), torch.randn(1, 2, 3), torch.tensor([2])
    loss, seen = GMOTLoss(config, 2), []
    for epoch in range(2):
        loss.train()
        for _ in range(2):
            loss(*batch)
            seen.append(loss.time.item())
        loss.eval()(*batch)
        if epoch == 0:  # killed after the first epoch: a new process loads the checkpoint
            again = GMOTLoss(config, 2)
            again.load_state_dict(loss.state_dict())
            loss = again
    assert seen == times
