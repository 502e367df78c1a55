"""Files beside exported weights: the tokenizer's settings, and a README on inputs, classes and temperature."""

from __future__ import annotations

from typing import Any

from loralab.inference.classifier import Classifier
from loralab.inference.onnx_model import INPUTS

README, TOKENIZER_CONFIG = "README.md", "tokenizer_config.json"


def max_length(classifier: Classifier) -> int:
    """Return the number of tokens at which texts are cut."""
    return min(classifier.manifest.max_length, classifier.manifest.dims.longest)


def tokenizer_config(classifier: Classifier) -> dict[str, Any]:
    """Return tokenizer_config.json: Transformers then cuts texts where the run did, and makes no token_type_ids."""
    pad = classifier.tokenizer.id_to_token(classifier.manifest.dims.pad_id)
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length(classifier),
        "model_input_names": [*INPUTS],
        **({"pad_token": pad} if pad else {}),
    }


def onnx_readme(classifier: Classifier) -> str:
    """Return the README of an ONNX file."""
    table = """| | name | type | shape |
| --- | --- | --- | --- |
| input | `input_ids` | int64 | (batch, tokens) |
| input | `attention_mask` | int64, 1 for tokens and 0 for padding | (batch, tokens) |
| output | `logits` | float32 | (batch, classes) |

There is no input `token_type_ids`: remove it if another tokenizer makes it."""
    code = f"""import numpy as np
import onnxruntime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
session = onnxruntime.InferenceSession("model.onnx")
batch = tokenizer(["a text"], truncation=True, padding=True, return_tensors="np")
inputs = {{name: batch[name].astype(np.int64) for name in ("input_ids", "attention_mask")}}
(logits,) = session.run(["logits"], inputs)
powers = np.exp((logits - logits.max(axis=1, keepdims=True)) / {classifier.manifest.temperature:.6g})
print(powers / powers.sum(axis=1, keepdims=True))"""
    return _readme(classifier, "ONNX export", f"`model.onnx` classifies texts with ONNX Runtime.\n\n{table}", code)


def merged_readme(classifier: Classifier, opens_in_transformers: bool) -> str:
    """Return the README of merged weights."""
    if not opens_in_transformers:
        return _readme(classifier, "Merged export", f"Only loralab reads this folder: {only_loralab(classifier)}.", "")
    code = f"""import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelForSequenceClassification.from_pretrained(".").eval()
batch = tokenizer(["a text"], truncation=True, padding=True, return_tensors="pt")
with torch.no_grad():
    print((model(**batch).logits / {classifier.manifest.temperature:.6g}).softmax(dim=1))"""
    what = "`AutoModelForSequenceClassification` and `pipeline` of Transformers open this folder. Pass `truncation=True`."
    return _readme(classifier, "Merged export", what, code)


def only_loralab(classifier: Classifier) -> str:
    """Return why Transformers has no class for a merged model."""
    manifest = classifier.manifest
    return f"Transformers has no classifier with pooling={manifest.pooling} and head={manifest.head}"


def _readme(classifier: Classifier, title: str, what: str, code: str) -> str:
    manifest = classifier.manifest
    classes = "\n".join(f"- {i}: {name}" for i, name in enumerate(map(_one_line, manifest.classes)))
    cleaning = f"`{','.join(manifest.clean)}`, as in `loralab clean`" if manifest.clean else "none"
    facts = [
        f"- **Temperature**: divide the logits by {manifest.temperature:.6g} before the softmax, as `loralab predict` does. It was "
        "fitted on the validation rows and changes the confidence, not the class.",
        f"- **Length**: texts are cut at {max_length(classifier)} tokens.",
        f"- **Cleaning** before the tokenizer: {cleaning}.",
    ]
    parts = [f"# {title}", what, "\n".join(facts), f"Classes in the order of the logits:\n\n{classes}"]
    parts += [f"```python\n{code}\n```"] if code else []
    parts.append('With loralab, which does all of this: `Classifier.load("FOLDER").predict(["a text"])`.')
    return "\n\n".join(parts) + "\n"


def _one_line(name: str) -> str:
    return " ".join(name.split())
