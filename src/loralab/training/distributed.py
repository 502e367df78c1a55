"""One run by many processes, which torchrun starts on one host or several: who does what, and how they stay of one mind.

Each process holds the whole network and takes its share of every step's examples. A pass's loss is divided by the mass of the whole
step (`training.loss`), so the sum of all processes' gradients is the step's gradient, whoever took which text. From equal weights
and equal gradients every process takes the same step. What decides (scores, and with them the best weights and early stopping) is
worked out by the first process and told to the others. torch is imported when there is somebody to talk to.
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

LONGEST_WAIT = timedelta(hours=2)
"""For one another: the hidden states of a large training set take the first process so long, while the others wait."""
_SECONDS_TO_SPEAK = 10.0


@dataclass(frozen=True)
class Distributed:
    """The processes of one run: this one is number `rank` of `size`, and `local_rank` of the `local_size` on this host."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def join(cls) -> Distributed:
        """Meet the processes that torchrun started with this one, and take a GPU each where there are any.

        Without torchrun a process is alone. Raises LoralabError when there are fewer GPUs than processes on this host.
        """
        if (size := int(os.environ.get("WORLD_SIZE", "1"))) == 1:
            return ALONE
        import torch
        from torch import distributed

        local = (int(os.environ[name]) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
        world = cls(int(os.environ["RANK"]), size, *local)
        if gpus := torch.cuda.device_count():
            if world.local_size > gpus:
                raise LoralabError(f"{world.local_size} processes need a GPU each and there are {gpus}: --nproc-per-node {gpus}")
            torch.cuda.set_device(world.local_rank)
        if not world.is_main:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first one's, which then ends as if it were alone
        with _in_touch():
            distributed.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=LONGEST_WAIT)
        return world

    def leave(self) -> None:
        """Part from the others when all has gone well."""
        if self.size > 1:
            from torch import distributed

            distributed.destroy_process_group()

    @property
    def is_main(self) -> bool:
        """True in the process that writes, prints and decides."""
        return self.rank == 0

    @property
    def threads(self) -> int | None:
        """The cores that fall to each process of this host; None, for torch to choose, where there is one."""
        if self.local_size == 1:
            return None
        return max(1, (psutil.cpu_count(logical=False) or os.cpu_count() or 1) // self.local_size)

    def share(self, positions: Ints, lengths: Ints) -> Ints:
        """Return our part of `positions`, of a step or a data set: about as many tokens as any other's; it may be empty."""
        return positions if self.size == 1 else partition_by_length(positions, lengths, self.size)[self.rank]

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Set tensors to what the first process has in them."""
        if self.size > 1:
            from torch import distributed

            with _in_touch():
                for tensor in tensors:
                    distributed.broadcast(tensor.detach(), src=0)

    def all_reduce(self, loss: float, parameters: Sequence[nn.Parameter]) -> float:
        """Set every gradient to the sum of all processes', in one message; return the sum of their losses.

        A gradient is None where it is None everywhere, so that AdamW passes over such a parameter as it does in one process.
        """
        if self.size == 1:
            return loss
        import torch
        from torch import distributed

        gradients = [parameter.grad for parameter in parameters]
        heads = torch.tensor([loss, *(gradient is not None for gradient in gradients)], device=parameters[0].device)
        bodies = [p.new_zeros(p.numel()) if g is None else g.flatten() for p, g in zip(parameters, gradients, strict=True)]
        message = torch.cat([heads, *bodies])
        with _in_touch():
            distributed.all_reduce(message)
        head, *body = torch.split(message, [len(heads), *(parameter.numel() for parameter in parameters)])
        total, *present = head.tolist()
        for parameter, found, anywhere in zip(parameters, body, present, strict=True):
            parameter.grad = found.view_as(parameter) if anywhere else None
        return float(total)

    def gather(self, value: T) -> list[T]:
        """Return what every process gave, in their order."""
        if self.size == 1:
            return [value]
        from torch import distributed

        found: list[Any] = [None] * self.size
        with _in_touch():
            distributed.all_gather_object(found, value)
        return found

    def run_on_main(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Call in the first process alone: all return what it returned, or raise the LoralabError it raised."""
        if self.size == 1:
            return function(*arguments, **named)
        from torch import distributed

        outcome: list[Any] = [_attempt(partial(function, *arguments, **named)) if self.is_main else None]
        with _in_touch():
            distributed.broadcast_object_list(outcome, src=0)
        found, error = outcome[0]
        if error is not None:
            raise error
        return cast(T, found)

    def run_everywhere(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Call in every process, which must not wait for another in it: where one raises a LoralabError, all raise that."""
        if self.size == 1:
            return function(*arguments, **named)
        found, error = _attempt(partial(function, *arguments, **named))
        for rank, theirs in enumerate(self.gather(error)):
            if theirs is not None:
                raise theirs if rank == 0 else type(theirs)(f"process {rank}: {theirs}")
        return cast(T, found)

    def main_first(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Call in the first process of each host, then in the others, which find on the disk what that one left there."""
        call = partial(function, *arguments, **named)
        found = self.run_everywhere(lambda: None if self.local_rank else call())
        return self.run_everywhere(lambda: call() if self.local_rank else cast(T, found))

    def check_same(self, **facts: object) -> None:
        """Raise LoralabError, in all processes, where one does not have the same facts as the first."""
        first, *others = self.gather(facts)
        for rank, theirs in enumerate(others, start=1):
            for name, value in theirs.items():
                if value != first[name]:
                    raise LoralabError(
                        f"process {rank} has other {name} than the first: {value}, not {first[name]}; "
                        "give every host the same command and the same files"
                    )


ALONE = Distributed()
"""The only process of a run."""


def tell(message: str) -> None:
    """Print what is wrong, which all processes know, once on each host; torchrun's own report, which comes later, ends with it."""
    if os.environ.get("LOCAL_RANK", "0") != "0":
        time.sleep(_SECONDS_TO_SPEAK)  # torchrun ends all others, sleep or no sleep, as soon as one has ended
        return
    print(message, file=sys.stderr)
    if report := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        content = {"message": message, "extraInfo": {"timestamp": int(time.time())}}
        Path(report).write_text(json.dumps({"message": content}), encoding="utf-8")


def exit_with(code: int) -> NoReturn:
    """End this process. One of several ends at once: taken down in order, its connection to the others may abort it."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _attempt(call: Callable[[], T]) -> tuple[T | None, LoralabError | None]:
    """What a call returned, or what it raised; a bug's traceback goes its own way, and torchrun ends the others."""
    try:
        return call(), None
    except LoralabError as error:
        return None, error


@contextlib.contextmanager
def _in_touch() -> Iterator[None]:
    """Where another process has gone, say so: why it went is told by itself, or by torchrun."""
    try:
        yield
    except RuntimeError as error:
        raise RunFailed(
            "another process of this run has ended or cannot be reached; the same command with --resume goes on from the last "
            f"checkpoint\n  {str(error)[:200]}"
        ) from error
