"""Several processes that train one network: each goes its own way for a few steps, then they meet in the middle.

On two cores, two processes of one thread see nearly twice as much as one process of two threads. Source: Lin et al.
2020, Don't Use Large Mini-Batches, Use Local SGD (arXiv:1808.07217).
"""

import os
import signal
import socket
import subprocess
import sys

import torch
import torch.distributed as dist
from torch import nn

MEET_EVERY = 8  # steps between two averages of the weights


def start(size: int) -> int:
    """Run this same command line in `size` processes that know of each other; the first exit status that isn't 0.

    A SIGTERM is passed on to all, so that they stop together and keep their work.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    members = [subprocess.Popen([sys.executable, *sys.argv], env={**shared, "RANK": str(rank)}) for rank in range(size)]
    signal.signal(signal.SIGTERM, lambda *_: [member.terminate() for member in members])
    return next((code for member in members if (code := member.wait())), 0)


class Team:
    """The processes that train together: this one's rank, and how many there are (one unless `start` made them)."""

    def __init__(self) -> None:
        self.rank, self.size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        if self.size > 1:
            dist.init_process_group("gloo")

    @property
    def leads(self) -> bool:
        """Whether this process writes logs and checkpoints."""
        return self.rank == 0

    @torch.no_grad()
    def meet(self, net: nn.Module, steps: int, running: bool) -> bool:
        """Every few steps average the weights, and go on only if all do; between meetings always go on."""
        if self.size == 1:
            return running
        if steps % MEET_EVERY:
            return True
        parameters = list(net.parameters())
        flat = torch.cat([p.flatten() for p in parameters] + [torch.tensor([float(running)])])
        dist.all_reduce(flat)
        flat /= self.size
        *values, all_running = flat.split([p.numel() for p in parameters] + [1])
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value.view_as(parameter))
        return bool(all_running == 1)
