"""The network over a whole data set, without gradients, in the data set's order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from loralab.data.batches import cut_into_passes, gather
from loralab.data.values import Encoded

TOKENS_PER_PASS = 4096


def logits_of(network: nn.Module, encoded: Encoded, tokens_per_pass: int = TOKENS_PER_PASS) -> npt.NDArray[np.float32]:
    """Return logits (n, classes) fp32, row i for text i. The network is left in the mode it was in."""
    device = next(network.parameters()).device
    if len(encoded) == 0:
        raise ValueError("there are no texts to score")
    was_training = network.training
    network.eval()
    logits: npt.NDArray[np.float32] | None = None
    with torch.inference_mode():
        for positions in cut_into_passes(np.arange(len(encoded)), encoded.lengths, tokens_per_pass):
            batch = gather(encoded, positions)
            tokens, mask = torch.from_numpy(batch.tokens).to(device), torch.from_numpy(batch.mask).to(device)
            found = network(tokens, mask).float().cpu().numpy()
            if logits is None:
                logits = np.empty((len(encoded), found.shape[1]), dtype=np.float32)
            logits[positions] = found
    network.train(was_training)
    assert logits is not None
    return logits
