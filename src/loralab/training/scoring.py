"""The network over a whole data set, without gradients, in the data set's order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from loralab.data.batches import Batch, collate, make_microbatches, partition_by_length
from loralab.data.types import Encoded, Ints
from loralab.training import parallel
from loralab.training.distributed import Distributed


def pass_size(device: torch.device) -> int:
    """Most padded tokens of a pass without gradients: few on a CPU, for its caches (1.1 times the speed of 4096)."""
    return 1024 if device.type == "cpu" else 1 << 16


def run_batch(network: nn.Module, batch: Batch, device: torch.device) -> Tensor:
    """Return the logits (batch, classes) fp32 of one pass, from its tokens or its kept hidden states."""
    inputs, mask = to_tensors(batch, device)
    logits: Tensor = network(inputs, mask) if batch.start is None else network(inputs, mask, batch.start)
    return logits


def to_tensors(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    """The inputs and the mask of one pass, as a network takes them."""
    inputs = torch.from_numpy(batch.inputs).to(device)
    return inputs.view(torch.bfloat16) if inputs.dtype == torch.uint16 else inputs, torch.from_numpy(batch.mask).to(device)


def last_linear(head: nn.Module) -> nn.Linear:
    """The linear map that gives the logits."""
    return [module for module in head.modules() if isinstance(module, nn.Linear)][-1]


def logits_of(
    network: nn.Module, encoded: Encoded, max_tokens_per_microbatch: int | None = None, rows: Ints | None = None
) -> npt.NDArray[np.float32]:
    """Return logits (n, classes) fp32, row i for text i, or for text rows[i]. The network is left in the mode it was in."""
    device = next(network.parameters()).device
    rows = np.arange(len(encoded)) if rows is None else rows
    if len(rows) == 0:
        raise ValueError("there are no texts to score")

    def run(positions: Ints) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            return run_batch(network, collate(encoded, rows[positions]), device).float().cpu().numpy()

    was_training = network.training
    network.eval()
    logits: npt.NDArray[np.float32] | None = None
    lengths, hands = encoded.lengths[rows], parallel.num_workers(network, len(rows))
    dealt = partition_by_length(np.arange(len(rows)), lengths, hands)
    passes = [each for part in dealt for each in make_microbatches(part, lengths, max_tokens_per_microbatch or pass_size(device))]
    for positions, found in zip(passes, parallel.parallel_map(run, passes, hands), strict=True):
        if logits is None:
            logits = np.empty((len(rows), found.shape[1]), dtype=np.float32)
        logits[positions] = found
    network.train(was_training)
    assert logits is not None
    return logits


def logits_among(world: Distributed, network: nn.Module, encoded: Encoded) -> npt.NDArray[np.float32]:
    """The same for the whole data set, of which each process scores its share; all get all logits."""
    if world.size == 1:
        return logits_of(network, encoded)
    rows = world.share(np.arange(len(encoded)), encoded.lengths)
    found = world.gather((rows, logits_of(network, encoded, rows=rows) if len(rows) else None))
    order = np.concatenate([rows for rows, _ in found])
    logits: npt.NDArray[np.float32] = np.concatenate([part for _, part in found if part is not None])[np.argsort(order)]
    return logits


def features_and_logits(
    network: nn.Module, encoded: Encoded, out: nn.Linear, rows: Ints | None = None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return in one pass what `out`, the network's last linear map, reads of each text (n, width), and the logits (n, classes)."""
    hook = out.register_forward_hook(lambda module, inputs, output: torch.cat([inputs[0].float(), output.float()], dim=-1))
    try:
        both = logits_of(network, encoded, rows=rows)
    finally:
        hook.remove()
    return both[:, : out.in_features], both[:, out.in_features :]
