"""Training rows that lie where the network computes: a step sends the numbers of its rows to a GPU, and nothing else."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from loralab.data.batches import gather, width_of
from loralab.data.values import Encoded, Ints
from loralab.training.scoring import to_tensors

SHARE = 0.5
"""Of a GPU's free memory that rows may take: 120,000 news texts are 26 MB of tokens, or 10 GB of roberta-base's hidden states."""


class Rows:
    """The rows of one data set, as a network takes them."""

    def __init__(self, encoded: Encoded, device: torch.device) -> None:
        self.encoded, self.device = encoded, device
        self.resident: Tensor | None = None
        if device.type == "cuda" and _values(encoded).nbytes < SHARE * torch.cuda.mem_get_info(device)[0]:
            self.settle()

    def settle(self) -> None:
        """Copy all rows to the device."""
        self.resident = _values(self.encoded).to(self.device)
        self.starts = torch.from_numpy(self.encoded.starts).to(self.device)

    def width(self, positions: Ints) -> int:
        """Tokens of each of these texts, padded together."""
        return width_of(self.encoded, positions)

    def at(self, positions: Ints, width: int | None = None) -> tuple[Tensor, Tensor]:
        """Return inputs and mask of one pass on the device, padded to their own width or a larger one (`data.batches.gather`)."""
        if self.resident is None:
            return to_tensors(gather(self.encoded, positions, width), self.device)
        rows = torch.from_numpy(positions).to(self.device)
        places = self.starts[rows][:, None] + torch.arange(width or self.width(positions), device=self.device)
        mask = places < self.starts[rows + 1][:, None]
        found = self.resident[places.clamp_max_(len(self.resident) - 1)]
        if self.encoded.hidden is not None:
            return found.masked_fill_(~mask[:, :, None], 0), mask
        return found.long().masked_fill_(~mask, self.encoded.pad_id), mask


def _values(encoded: Encoded) -> Tensor:
    """Tokens (total,) int32, or hidden states (total, width); bf16 comes as its bits in uint16."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # a file's pages: they are only read
        values = torch.from_numpy(encoded.tokens if encoded.hidden is None else encoded.hidden)
    return values.view(torch.bfloat16) if values.dtype == torch.uint16 else values
