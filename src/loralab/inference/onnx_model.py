"""The merged network as an ONNX file, and such a file as a network: the same logits from ONNX Runtime, without torch's kernels."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loralab.errors import LoralabError, need
from loralab.model.encoder import EncoderClassifier

ONNX = "model.onnx"
INPUTS, OUTPUT = ("input_ids", "attention_mask"), "logits"


class _Plain(nn.Module):
    """The network behind the inputs that ONNX users expect: the mask as 0 and 1."""

    def __init__(self, network: EncoderClassifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.network(input_ids, attention_mask != 0)
        return logits


def to_onnx(network: EncoderClassifier, path: Path) -> None:
    """Write a merged fp32 network: input_ids and attention_mask, (batch, time) int64 of any size → logits (batch, classes)."""
    need("onnxscript", "onnx")
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("time", max=network.dims.longest)}
    example = (torch.full((3, 8), 5), torch.ones(3, 8, dtype=torch.int64))
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)  # it misses torchvision, and says so
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # the exporter tells its own progress
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            _Plain(network).eval(),
            example,
            dynamo=True,
            dynamic_shapes=dict.fromkeys(INPUTS, sizes),
            input_names=INPUTS,
            output_names=(OUTPUT,),
            verbose=False,
        )
    program.save(path)


def quantize(path: Path, out: Path) -> None:
    """Write a file whose products are in 8 bits: weights by channel, activations by their range at run time."""
    onnx: Any = need("onnx", "onnx")
    need("onnxruntime", "onnx")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(path)
    del model.graph.value_info[:]  # shapes that the exporter noted contradict what the quantiser infers anew
    plain = out.with_suffix(".plain.onnx")
    onnx.save(model, plain)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises a step for image models
    try:
        quantize_dynamic(plain, out, per_channel=True, weight_type=QuantType.QInt8)
    finally:
        root.setLevel(level)
        plain.unlink()


class OnnxClassifier(nn.Module):
    """An ONNX file behind the network's interface: tokens and mask → logits. On the processor, for inference only."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        super().__init__()
        runtime: Any = need("onnxruntime", "onnx")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self.session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library's own errors have no common root
            raise LoralabError(f"cannot read {path}: {error}") from error
        self.place = nn.Parameter(torch.zeros(1), requires_grad=False)  # tells callers that it computes on the processor

    def forward(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """inputs: tokens (batch, time) int64; mask: (batch, time) bool → logits (batch, classes) fp32."""
        (logits,) = self.session.run([OUTPUT], {INPUTS[0]: inputs.numpy(), INPUTS[1]: mask.to(torch.int64).numpy()})
        return torch.from_numpy(logits)
