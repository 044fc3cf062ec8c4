"""Started by torchrun in the tests: train the tiny fold of the given root."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import torch
from torch import nn

from autoseg.support.log import configure_logging
from autoseg.training.distributed import distributed_context
from autoseg.training.train_fold import train_fold
from autoseg.training.trainer import Trainer
from tests.training import tiny


def make_deterministic() -> None:
    """Remove what differs between one process and several: dropout, and batch norm, which PyTorch cannot synchronise on
    CPUs. Group norm replaces it.
    """
    original_init = tiny.Tiny.__init__

    def init(self: tiny.Tiny, *arguments: int) -> None:
        original_init(self, *arguments)
        for module in self.modules():
            if isinstance(module, nn.Dropout2d):
                module.p = 0.0
        for layers in (self.stem, self.body):
            layers[1] = nn.GroupNorm(2, layers[1].num_features)  # type: ignore[arg-type]

    tiny.Tiny.__init__ = init  # type: ignore[method-assign]


def train(root: Path, stop_before: int) -> None:
    """stop_before: the last process is asked to stop before that step, 0 for never."""
    tiny.register()
    make_deterministic()
    dataset, plan, splits = tiny.reopen(root)
    # Two micro-batches a step, with shards of unequal size.
    plan = tiny.with_training(plan, epochs=8, cldice=0.3)
    plan = tiny.with_model(plan, batch_size=6, accumulate=2, learning_rate=0.05, memory_format="channels_last")
    with distributed_context() as team:
        configure_logging(logging.INFO if team.is_main else logging.WARNING)
        if stop_before and team.rank == team.size - 1:
            leave = Trainer._exit_if_requested
            count = 0

            def requested(self, stop):  # type: ignore[no-untyped-def]
                nonlocal count
                count += 1
                if count == stop_before:
                    import signal

                    stop.requested = signal.SIGTERM
                leave(self, stop)

            Trainer._exit_if_requested = requested  # type: ignore[method-assign]
        train_fold(dataset, plan, splits, tiny.NAME, 0, device="cpu", team=team)


torch.set_num_threads(1)
train(Path(sys.argv[1]), int(sys.argv[2]))
