"""Data-parallel training by several processes, which torchrun starts on one host or several.

Every process holds the whole model and computes its share of each batch. Micro-batch losses are divided by the normalizer of the
whole batch (`training.loss`), so the sum of the gradients over all processes is the gradient of the batch, however it is shared.
From equal weights and equal gradients every process takes the same step. The main process scores evaluations, and with them picks
the best weights and stops early; the others receive its decision. torch is imported only when there are other processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar, cast

import psutil

from loralab.data.batches import partition_by_length
from loralab.data.types import Ints
from loralab.errors import LoralabError, RunFailed

if TYPE_CHECKING:
    from torch import Tensor, nn

P = ParamSpec("P")
T = TypeVar("T")

TIMEOUT = timedelta(hours=2)
"""Of one collective operation: the other processes wait while the main process fills a large feature cache."""
_REPORT_SECONDS = 10.0
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class Distributed:
    """The processes of one run: this one is number `rank` of `size`, and number `local_rank` of `local_size` on its host."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def join(cls) -> Distributed:
        """Connect to the processes that torchrun started with this one, with one GPU each if the host has any.

        Without torchrun the result is `ALONE`. Raises LoralabError if torchrun's variables are incomplete, or if the host has
        fewer GPUs than processes.
        """
        if os.environ.get("WORLD_SIZE", "1") == "1":
            return ALONE
        import torch
        from torch import distributed as group

        joined = cls(*_read_variables())
        if gpus := torch.cuda.device_count():
            if joined.local_size > gpus:
                raise LoralabError(f"{joined.local_size} processes need a GPU each and there are {gpus}: --nproc-per-node {gpus}")
            torch.cuda.set_device(joined.local_rank)
        if not joined.is_main:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles Ctrl-C
        with _explain_lost_process():
            group.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=TIMEOUT)
        return joined

    def leave(self) -> None:
        """Disconnect after a successful run."""
        if self.size > 1:
            from torch import distributed as group

            group.destroy_process_group()

    @property
    def is_main(self) -> bool:
        """True in the process that writes, prints and decides."""
        return self.rank == 0

    @property
    def threads(self) -> int | None:
        """CPU threads for each process of this host; None, which leaves the choice to torch, if there is one process."""
        if self.local_size == 1:
            return None
        return max(1, available_cores() // self.local_size)

    def share(self, positions: Ints, lengths: Ints) -> Ints:
        """Return this process's part of `positions`, with about as many tokens as any other's. It may be empty."""
        return positions if self.size == 1 else partition_by_length(positions, lengths, self.size)[self.rank]

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Copy the main process's values into the tensors of all processes."""
        if self.size > 1:
            from torch import distributed as group

            with _explain_lost_process():
                for tensor in tensors:
                    group.broadcast(tensor.detach(), src=0)

    def all_reduce(self, loss: float, parameters: Sequence[nn.Parameter]) -> float:
        """Replace every gradient by its sum over all processes, in one message. Return the sum of the losses.

        A gradient stays None if it is None in all processes: the optimizer then skips the parameter, as in a single process.
        """
        if self.size == 1:
            return loss
        import torch
        from torch import distributed as group

        gradients = [parameter.grad for parameter in parameters]
        header = torch.tensor([loss, *(gradient is not None for gradient in gradients)], device=parameters[0].device)
        values = [p.new_zeros(p.numel()) if g is None else g.flatten() for p, g in zip(parameters, gradients, strict=True)]
        message = torch.cat([header, *values])
        with _explain_lost_process():
            group.all_reduce(message)
        header, *sums = torch.split(message, [len(header), *(parameter.numel() for parameter in parameters)])
        total, *present = header.tolist()
        for parameter, summed, anywhere in zip(parameters, sums, present, strict=True):
            parameter.grad = summed.view_as(parameter) if anywhere else None
        return float(total)

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, in order of rank."""
        if self.size == 1:
            return [value]
        from torch import distributed as group

        values: list[Any] = [None] * self.size
        with _explain_lost_process():
            group.all_gather_object(values, value)
        return values

    def run_on_main(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Call a function in the main process. Every process returns its result, or raises its LoralabError."""
        if self.size == 1:
            return function(*arguments, **named)
        from torch import distributed as group

        outcome: list[Any] = [_capture_outcome(partial(function, *arguments, **named)) if self.is_main else None]
        with _explain_lost_process():
            group.broadcast_object_list(outcome, src=0)
        result, error = outcome[0]
        if error is not None:
            raise error
        return cast(T, result)

    def run_everywhere(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Call a function in every process. If one raises a LoralabError, all raise it.

        The function must not wait for another process.
        """
        if self.size == 1:
            return function(*arguments, **named)
        result, error = _capture_outcome(partial(function, *arguments, **named))
        for rank, raised in enumerate(self.gather(error)):
            if raised is not None:
                raise raised if rank == 0 else type(raised)(f"process {rank}: {raised}")
        return cast(T, result)

    def main_first(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Call a function in the first process of each host, then in the others, which can read the files it wrote."""
        call = partial(function, *arguments, **named)
        result = self.run_everywhere(lambda: None if self.local_rank else call())
        return self.run_everywhere(lambda: call() if self.local_rank else cast(T, result))

    def check_same(self, **facts: object) -> None:
        """Raise LoralabError in all processes if a fact differs from that of the main process."""
        main, *others = self.gather(facts)
        for rank, other in enumerate(others, start=1):
            for name, value in other.items():
                if value != main[name]:
                    raise LoralabError(
                        f"process {rank} and the main process differ in {name}: {value}, not {main[name]}; "
                        "give every host the same command and the same files"
                    )


ALONE = Distributed()
"""The only process of a run."""


def available_cores() -> int:
    """Return the number of physical cores that this process may use."""
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return min(physical, len(os.sched_getaffinity(0)))
    return physical


def report_error(message: str) -> None:
    """Print an error that all processes know once per host, and add it to the report that torchrun prints at the end."""
    launched = _is_launched()
    if launched and os.environ["LOCAL_RANK"] != "0":
        time.sleep(_REPORT_SECONDS)  # torchrun ends all processes when one has ended: leave the first time to print
        return
    print(message, file=sys.stderr)
    if launched and (report := os.environ.get("TORCHELASTIC_ERROR_FILE")):
        content = {"message": message, "extraInfo": {"timestamp": int(time.time())}}
        Path(report).write_text(json.dumps({"message": content}), encoding="utf-8")


def exit_with(code: int) -> NoReturn:
    """End this process. One of several ends without cleaning up, which could abort in the connection to the others."""
    if _is_launched():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _is_launched() -> bool:
    """Return whether torchrun started this process as one of several."""
    return all(name in os.environ for name in _VARIABLES) and os.environ["WORLD_SIZE"] != "1"


def _read_variables() -> tuple[int, int, int, int]:
    """Return rank, size, local rank and local size from torchrun's environment variables."""
    if missing := [name for name in _VARIABLES if name not in os.environ]:
        raise LoralabError(
            f"the environment has WORLD_SIZE={os.environ['WORLD_SIZE']} and no {', '.join(missing)}: start several processes with "
            "torchrun, or unset WORLD_SIZE"
        )
    try:
        rank, size, local_rank, local_size = (int(os.environ[name]) for name in _VARIABLES)
    except ValueError as error:
        values = ", ".join(f"{name}={os.environ[name]}" for name in _VARIABLES)
        raise LoralabError(f"{values}: these environment variables must be numbers, as torchrun sets them") from error
    return rank, size, local_rank, local_size


def _capture_outcome(call: Callable[[], T]) -> tuple[T | None, LoralabError | None]:
    """Return the result of a call, or its LoralabError. Other exceptions propagate, and torchrun ends the other processes."""
    try:
        return call(), None
    except LoralabError as error:
        return None, error


@contextlib.contextmanager
def _explain_lost_process() -> Iterator[None]:
    """Turn a failed collective operation into RunFailed. Its cause is in the output of the process that ended."""
    try:
        yield
    except RuntimeError as error:
        raise RunFailed(
            "another process of this run has ended or cannot be reached; resume from the last checkpoint with the same command and "
            f"--resume\n  {str(error)[:200]}"
        ) from error
