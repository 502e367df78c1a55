"""A user's script with every public name, for `mypy --strict`."""

from __future__ import annotations

from pathlib import Path

import loralab
from loralab import (
    Callback,
    Classifier,
    Config,
    Experiment,
    LoralabError,
    LoraTextClassifier,
    Predictions,
    Run,
    Scores,
)


class Watch(Callback):
    """Stops a run early."""

    def on_train_end(self, folder: Path) -> None:
        """Print where it is."""
        print(folder)


def estimate(texts: list[str], labels: list[str]) -> float:
    """Fit, save, load and score."""
    clf = LoraTextClassifier(base="minilm", rank=16, epochs=4, random_state=42)
    clf.fit(texts, labels, sample_weight=[1.0] * len(texts), validation_data=(texts, labels), callbacks=[Watch()])
    folder: Path = clf.save("model")
    return float(LoraTextClassifier.load(folder).predict_proba(texts)[0, 0])


def study(rows: dict[str, list[str]]) -> Experiment:
    """Use every function."""
    check = loralab.check_data(rows)
    config: Config = loralab.load_config("quickstart", ["lora.rank=4"])
    train, _ = loralab.load_sample()
    print(check.refused, [recipe.name for recipe in loralab.list_recipes()], len(train), loralab.augment(["a b"])["swap"])
    try:
        run: Run = loralab.train(rows, {"train.epochs": 1}, recipe=config, callbacks=[Watch()])
    except LoralabError as error:
        print(error.exit_code)
        raise
    scores: Scores = loralab.evaluate(run, rows)
    model: Classifier = loralab.load(run.folder)
    predictions: Predictions = model.predict(rows["text"])
    print(scores.macro_f1, scores.per_class["a"].f1, predictions.labels[0], Scores.from_predictions(predictions, rows["label"]))
    print(loralab.diagnose(run).sections, loralab.export(run, "onnx").folder, loralab.budget(max_trainable=1_000_000))
    tuned: Experiment = loralab.search(rows, over={"lora.rank": [4, 8]}, trials=2)
    runs = loralab.experiment("seeds", rows, seeds=[1, 2], points={"lora.rank": [4]}).runs
    print(loralab.model_soup(runs, "soup").folder, tuned.best.lora.rank)
    return loralab.compare(runs)
