"""One run of SetFit, in a Python that has it (see few_shot.py): python setfit_draw.py WORK.json RESULT.json

SetFit's defaults (batch 16, one epoch, body 2e-5, logistic regression) with 20 positive and 20 negative pairs per text, as in the
paper (Tunstall et al. 2022). It does not import loralab.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

ITERATIONS = 20


def main(work_file: str, result_file: str) -> None:
    import torch
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    work = json.loads(Path(work_file).read_text(encoding="utf-8"))
    if work["threads"]:
        torch.set_num_threads(work["threads"])
    texts, labels = work["train"]
    model = SetFitModel.from_pretrained(work["encoder"])
    arguments = TrainingArguments(num_iterations=ITERATIONS, seed=work["seed"], save_strategy="no", report_to="none")
    trainer = Trainer(model=model, args=arguments, train_dataset=Dataset.from_dict({"text": texts, "label": labels}))
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    test_texts, test_labels = work["test"]
    predicted = model.predict(test_texts, batch_size=64)
    right = sum(int(a) == b for a, b in zip(predicted, test_labels, strict=True))
    Path(result_file).write_text(json.dumps({"accuracy": right / len(test_labels), "seconds": seconds}), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
