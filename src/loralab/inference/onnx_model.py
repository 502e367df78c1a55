"""Export a merged model to ONNX, and run such a file with ONNX Runtime.

The graph takes input_ids and attention_mask. It also accepts token_type_ids, which usual tokenizers make, and ignores them: a text
has one segment.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loralab.errors import LoralabError, import_optional
from loralab.model.build import TrainableModel
from loralab.model.encoder import EncoderClassifier
from loralab.model.manifest import Manifest
from loralab.model.parameter_counts import ParameterCounts

ONNX = "model.onnx"
INPUTS, OPTIONAL_INPUT, OUTPUT = ("input_ids", "attention_mask"), "token_type_ids", "logits"


class _IntegerMask(nn.Module):
    """The model with the inputs that ONNX users expect: the mask is 0 and 1."""

    def __init__(self, model: TrainableModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        model: Any = self.model
        native = isinstance(model, EncoderClassifier)
        logits: Tensor = model(input_ids, attention_mask != 0) if native else model.plain(input_ids, attention_mask)
        return logits


@contextlib.contextmanager
def _only_errors(name: str | None) -> Iterator[None]:
    """Raise the level of a logger (None: the root) to ERROR, and restore it."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def to_onnx(model: TrainableModel, path: Path, facts: Mapping[str, object]) -> None:
    """Write a merged fp32 model: input_ids and attention_mask, (batch, time) int64 of any size → logits (batch, classes).

    facts: for the file's metadata; what is not a text is written as JSON.
    """
    import_optional("onnxscript", "onnx")
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("time", max=model.dims.longest)}
    example = (torch.full((3, 8), 5), torch.ones(3, 8, dtype=torch.int64))
    registration = "torch.onnx._internal.exporter._registration"  # warns that torchvision is missing
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        _only_errors(registration),
        _only_errors("onnxscript"),
    ):
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            _IntegerMask(model).eval(),
            example,
            dynamo=True,
            dynamic_shapes=dict.fromkeys(INPUTS, sizes),
            input_names=INPUTS,
            output_names=(OUTPUT,),
            verbose=False,
        )
    program.save(path)
    _describe(path, facts)


def _describe(path: Path, facts: Mapping[str, object]) -> None:
    """Add the metadata and the optional input: an initializer that a caller may replace."""
    onnx: Any = import_optional("onnx", "onnx")
    model = onnx.load(path)
    shape = [dimension.dim_param for dimension in model.graph.input[0].type.tensor_type.shape.dim]
    value = onnx.helper.make_tensor_value_info(OPTIONAL_INPUT, onnx.TensorProto.INT64, shape)
    model.graph.input.append(value)
    model.graph.initializer.append(onnx.helper.make_tensor(OPTIONAL_INPUT, onnx.TensorProto.INT64, [1, 1], [0]))
    onnx.helper.set_model_props(model, {name: v if isinstance(v, str) else json.dumps(v) for name, v in facts.items()})
    onnx.save(model, path)


def quantize(path: Path, out: Path) -> None:
    """Write an ONNX file with products in 8 bits: weights quantized per channel, activations by their range at run time."""
    onnx: Any = import_optional("onnx", "onnx")
    import_optional("onnxruntime", "onnx")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(path)
    del model.graph.value_info[:]  # the exporter's shapes contradict those that the quantizer infers
    stripped = out.with_suffix(".stripped.onnx")
    onnx.save(model, stripped)
    try:
        with _only_errors(None):  # it recommends a step for image models
            quantize_dynamic(stripped, out, per_channel=True, weight_type=QuantType.QInt8)
    finally:
        stripped.unlink()


class OnnxClassifier:
    """An ONNX file as a classifier model: on the CPU, for inference only. Its head is inside the file.

    threads: default torch's number.
    """

    architecture = "ONNX"
    training = False
    device = torch.device("cpu")
    compute_dtype = torch.float32
    allocation = None
    supports_feature_cache = False
    thread_safe = False
    min_texts_per_worker = 1

    def __init__(self, path: Path, threads: int | None = None) -> None:
        runtime: Any = import_optional("onnxruntime", "onnx")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self.session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library's errors have no common root
            raise LoralabError(f"cannot read {path}: {error}") from error
        self.path = path
        self.head = nn.Identity()

    def __call__(self, inputs: Tensor, mask: Tensor, start: int | None = None) -> Tensor:
        """inputs: tokens (batch, time) int64; mask: (batch, time) bool → logits (batch, classes) fp32."""
        assert start is None, "an ONNX model cannot start at a layer"
        (logits,) = self.session.run([OUTPUT], {INPUTS[0]: inputs.numpy(), INPUTS[1]: mask.to(torch.int64).numpy()})
        return torch.from_numpy(logits)

    @property
    def classes(self) -> int:
        return int(self.session.get_outputs()[0].shape[1])

    def parameters(self) -> Iterator[nn.Parameter]:
        return iter(())

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return iter(())

    def train(self, mode: bool = True) -> OnnxClassifier:
        """Nothing to do: the file is always in inference mode."""
        return self

    def eval(self) -> OnnxClassifier:
        return self

    def requires_grad_(self, requires_grad: bool = True) -> OnnxClassifier:
        return self

    def merge(self) -> None:
        """Nothing to do: the exported weights are merged."""

    def parameter_counts(self) -> ParameterCounts:
        raise LoralabError(f"{self.path} does not tell adapters from other weights: count the run that it was exported from")

    def save(self, folder: Path, manifest: Manifest) -> None:
        raise LoralabError(f"{self.path} is an export: save the run that it was exported from")
