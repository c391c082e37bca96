"""Two processes with a part of a batch each learn what one process learns from the whole batch."""

import os
from pathlib import Path

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from espnet_gmot.config import GMOTConfig
from espnet_gmot.loss import GMOTLoss

STEPS, WIDTH, TEACHER = 4, 6, 5


class Host(torch.nn.Module):
    """An encoder and the transfer loss."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = torch.nn.Linear(3, WIDTH)
        mix = {"teacher_width": 2 * TEACHER, "teacher_layer": [6, 12], "teacher_mix": True}
        self.loss = GMOTLoss(GMOTConfig(**mix, backend="torch", warmup=3), WIDTH)

    def forward(self, speech: torch.Tensor, *batch: torch.Tensor) -> torch.Tensor:
        return self.loss(self.encoder(speech), *batch)[0]


def data(step: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(step)
    speech = torch.randn(4, 12, 3, generator=generator)
    teacher = torch.randn(4, 5, 2 * TEACHER, generator=generator) + 2
    return speech, torch.tensor([12, 9, 11, 5]), teacher, torch.tensor([5, 3, 4, 2])


def train(host: torch.nn.Module, rows: slice, world: int) -> list[float]:
    """Losses of a few steps; over several ranks, utterances count alike wherever they are, as in ESPnet's trainer."""
    optimizer, losses = torch.optim.SGD(host.parameters(), lr=0.1), []
    for step in range(STEPS):
        batch = [tensor[rows] for tensor in data(step)]
        share = len(batch[0]) / 4
        loss = host(*batch) * share * world  # DDP averages the gradients over the ranks
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss = loss.detach().clone() / world
        if world > 1:
            torch.distributed.all_reduce(loss)
        losses.append(loss.item())
    return losses


def worker(rank: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0", OMP_NUM_THREADS="1")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    host = DistributedDataParallel(Host(), find_unused_parameters=False)
    losses = train(host, (slice(0, 3), slice(3, 4))[rank], 2)
    torch.save((losses, host.module.state_dict()), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()
    # gloo's threads outlive the group, and one that lets go of its last tensor while Python ends aborts the process
    os._exit(0)


def test_two_processes_equal_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(worker, (str(tmp_path),), nprocs=2)
    single = Host()
    losses = train(single, slice(0, 4), 1)
    for rank in range(2):
        theirs, state = torch.load(tmp_path / f"{rank}.pt")
        assert theirs == pytest.approx(losses, abs=1e-5)
        for name, value in single.state_dict().items():
            torch.testing.assert_close(state[name], value, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
