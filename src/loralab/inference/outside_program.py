"""A program without loralab: load an export with the libraries it is made for, and write the logits of texts.

`loralab.inference.outside` runs it in a process of its own, with a JSON file: texts, sizes (of batches), out (a folder), and jobs
of kind, folder, base, tokenizer, classes, pooling, max_length.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Logits = Callable[[Sequence[str]], Any]


def merged(job: dict[str, Any]) -> Logits:
    """Transformers' own classifier and tokenizer."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(job["folder"]).eval()
    assert [model.config.id2label[i] for i in range(len(job["classes"]))] == job["classes"], "config.json has other class names"
    return _classifier(model, job["folder"])


def peft(job: dict[str, Any]) -> Logits:
    """Peft over the base; without a place for the head in peft's file, the head of head.safetensors."""
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    head_file = Path(job["folder"]) / "head.safetensors"
    if not head_file.is_file():
        base = AutoModelForSequenceClassification.from_pretrained(
            job["base"], num_labels=len(job["classes"]), ignore_mismatched_sizes=True
        )
        return _classifier(PeftModel.from_pretrained(base, job["folder"]).eval(), job["folder"])
    encoder = PeftModel.from_pretrained(AutoModel.from_pretrained(job["base"]), job["folder"]).eval()
    tokenizer, head = AutoTokenizer.from_pretrained(job["folder"]), load_file(head_file)

    def logits(texts: Sequence[str]) -> Any:
        batch = tokenizer(list(texts), return_tensors="pt", padding=True, truncation=True)
        with torch.no_grad():
            hidden, mask = encoder(**batch).last_hidden_state, batch["attention_mask"].unsqueeze(-1)
        pooled = (hidden * mask).sum(1) / mask.sum(1) if job["pooling"] == "mean" else hidden[:, 0]
        return pooled @ head["head.out.weight"].T + head["head.out.bias"]

    return logits


def pipeline(job: dict[str, Any]) -> Logits:
    """Transformers' pipeline: the logarithm of its probabilities."""
    import numpy as np
    from transformers import pipeline as make_pipeline

    classify = make_pipeline("text-classification", model=job["folder"], device="cpu")

    def logits(texts: Sequence[str]) -> Any:
        answers: Any = classify(list(texts), truncation=True, batch_size=len(texts), top_k=None)
        scores = [{answer["label"]: answer["score"] for answer in answer_list} for answer_list in answers]
        return np.log([[row[name] for name in job["classes"]] for row in scores])

    return logits


def sentence_transformers(job: dict[str, Any]) -> Logits:
    """The embedding of sentence-transformers, which is the logits."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(job["folder"], device="cpu")
    return lambda texts: model.encode(list(texts), batch_size=len(texts), show_progress_bar=False)


def onnx(job: dict[str, Any]) -> Logits:
    """ONNX Runtime with everything that Transformers' tokenizer makes: the export's, or that of the folder `tokenizer`."""
    import numpy as np
    import onnxruntime
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job["tokenizer"] or job["folder"], model_max_length=job["max_length"])
    session = onnxruntime.InferenceSession(str(Path(job["folder"]) / "model.onnx"), providers=["CPUExecutionProvider"])

    def logits(texts: Sequence[str]) -> Any:
        batch = tokenizer(list(texts), return_tensors="np", padding=True, truncation=True)
        return session.run(["logits"], {name: values.astype(np.int64) for name, values in batch.items()})[0]

    return logits


def _classifier(model: Any, folder: str) -> Logits:
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)

    def logits(texts: Sequence[str]) -> Any:
        batch = tokenizer(list(texts), return_tensors="pt", padding=True, truncation=True)
        with torch.no_grad():
            return model(**batch).logits

    return logits


def main() -> None:
    sys.modules["loralab"] = None  # type: ignore[assignment]
    import numpy as np
    import torch
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    kinds = {"merged": merged, "pipeline": pipeline, "peft": peft, "sentence-transformers": sentence_transformers, "onnx": onnx}
    texts = task["texts"]
    for number, job in enumerate(task["jobs"]):
        try:
            logits = kinds[job["kind"]](job)
            by_size = [
                np.concatenate([np.asarray(logits(texts[start : start + size])) for start in range(0, len(texts), size)])
                for size in task["sizes"]
            ]
            np.save(Path(task["out"]) / f"{number}.npy", np.stack(by_size))
        except Exception as error:  # any library's: the export does not open
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            (Path(task["out"]) / f"{number}.txt").write_text(reason, encoding="utf-8")


if __name__ == "__main__":
    main()
