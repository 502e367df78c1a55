"""Rewrite a classifier with mean pooling or a linear head as its architecture's own classifier, with the same logits.

Transformers' classifiers of the BERT family read the first token through a dense layer with an activation. Both can be passed
unchanged:

- An activation is linear in pairs: gelu(x) - gelu(-x) = x and relu(x) - relu(-x) = x. tanh(x) = x for small x.
- Mean pooling is attention with equal scores, so an additional layer averages the logits of all real tokens. Its norms divide by a
  standard deviation that large constants in the other positions keep fixed: the norms are linear to 1e-6.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from torch import Tensor

from loralab.errors import LoralabError
from loralab.model.encoder import EncoderClassifier
from loralab.model.layers import EncoderLayer, Norm

_HIDDEN, _LOGIT = 2.0**-12, 2.0**6
"""Scales in the additional layer: of the first token's hidden state, which its residual connection adds, and of the logits."""
_CONSTANT, _LARGE_CONSTANT = 2.0**15, 2.0**20
"""The constant in the other positions. The first suits logits of a usual size, and fits into fp16."""
_USUAL = 20.0
"""The norm of logits up to which `_CONSTANT` suffices."""
_TANH = 2.0**-15
"""Scale of the logits inside a tanh: of logits up to 100 it changes 1e-6 of the value."""


def check_convertible(model: EncoderClassifier) -> None:
    """Raise LoralabError that says why the architecture's own classifier cannot compute the model's logits."""
    if model.pooling == "cls" and model.head_kind == "default":
        return
    needed, width = 2 * model.classes + 2, model.dims.width
    if model.head_kind != "linear" or isinstance(model.pooling, int):
        raise LoralabError(f"Transformers has no classifier with pooling={model.pooling} and head={model.head_kind}")
    if needed > width:
        raise LoralabError(f"{model.classes} classes with a linear head need an encoder {needed} wide, and this one has {width}")


def merged_obstacle(model: Any) -> str:
    """Return why no class of Transformers computes the logits, which a merged export needs; empty if one does."""
    try:
        if isinstance(model, EncoderClassifier):
            check_convertible(model)
        elif model.head_kind != "default":
            return f"Transformers has no {model.dims.model_type} classifier with pooling={model.pooling} and head={model.head_kind}"
    except LoralabError as error:
        return str(error)
    return ""


@torch.no_grad()
def to_default_head(model: EncoderClassifier, largest: float) -> EncoderClassifier:
    """Return a merged fp32 model with pooling=cls and head=default that has the same logits, or `model` if it is one.

    largest: the largest norm of the logits of a text. Raises LoralabError if there is no such model (`check_convertible`).
    """
    check_convertible(model)
    if model.pooling == "cls" and model.head_kind == "default":
        return model
    weight, bias, classes = model.head.out.weight.detach(), model.head.out.bias.detach(), model.classes
    added = 1 if model.pooling == "mean" else 0
    dims = dataclasses.replace(model.dims, layers=model.dims.layers + added)
    result = EncoderClassifier(dims, classes, pooling="cls", head="default", dropout=model.head.dropout.p)
    result.embeddings = copy.deepcopy(model.embeddings)
    for index in range(model.dims.layers):
        result.layers[index] = copy.deepcopy(model.layer(index))
    if added:
        last = result.layer(model.dims.layers - 1).ffn_norm
        last.weight.mul_(_HIDDEN)
        last.bias.mul_(_HIDDEN)
        _average(result.layer(model.dims.layers), weight, bias, _CONSTANT if largest < _USUAL else _LARGE_CONSTANT)
        weight, bias = torch.zeros_like(weight), torch.zeros_like(bias)
        weight[:, :classes], weight[:, classes : 2 * classes] = torch.eye(classes) / 2, -torch.eye(classes) / 2
    _pass_through(result, weight, bias)
    return result.eval()


def _average(layer: EncoderLayer, weight: Tensor, bias: Tensor, constant: float) -> None:
    """Set a layer to return the mean logits, and their negatives, in the first positions: head(mean of hidden states)."""
    classes, width = weight.shape
    for parameter in layer.parameters():
        parameter.zero_()  # queries and keys too: every score is 0
    values, eye = layer.qkv.rows("value"), torch.eye(classes)
    layer.qkv.weight[values][:classes] = weight / _HIDDEN
    layer.output.weight[:classes, :classes], layer.output.weight[classes : 2 * classes, :classes] = _LOGIT * eye, -_LOGIT * eye
    layer.output.bias[:classes], layer.output.bias[classes : 2 * classes] = _LOGIT * bias, -_LOGIT * bias
    rest = torch.arange(2 * classes, width - width % 2)
    for projection, norm, scale in ((layer.output, layer.attention_norm, 1.0), (layer.ffn_out, layer.ffn_norm, _LOGIT)):
        projection.bias[rest] = constant * (1 - 2 * (rest % 2)).float()
        deviation = constant * (len(rest) / width) ** 0.5
        assert isinstance(norm, Norm)
        norm.weight[: 2 * classes] = deviation / scale


def _pass_through(model: EncoderClassifier, weight: Tensor, bias: Tensor) -> None:
    """Set the default head to compute weight · x + bias."""
    dense, out, classes = model.head.dense, model.head.out, model.classes
    assert dense is not None
    for parameter in (dense.weight, dense.bias, out.weight, out.bias):
        parameter.zero_()
    signs = (_TANH,) if model.head.activation == "tanh" else (1.0, -1.0)
    for i, sign in enumerate(signs):
        rows = slice(i * classes, (i + 1) * classes)
        dense.weight[rows], dense.bias[rows] = sign * weight, sign * bias
        out.weight[:, rows] = torch.eye(classes) / sign
