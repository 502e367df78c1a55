"""Whole runs with Transformers and peft: they learn, repeat and resume bit for bit, and are counted and described."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import FOREIGN_TYPES, make_checkpoint

from loralab import Classifier, LoralabError, load_config
from loralab.info import budget_options, describe
from loralab.model.hf.model import HFClassifier
from loralab.pipeline import RunSummary, run_training
from loralab.training.callbacks import Event, StepEnd

SETTINGS = [
    "train.epochs=3",
    "train.eval_steps=4",
    "train.batch_size=8",
    "train.threads=1",
    "train.precision=fp32",
    "train.schedule=constant",
    "train.warmup=0",
    "data.max_length=32",
    "lora.rank=4",
    "lora.targets=query,value",
    "model.dropout=0.1",
]
DROPOUT = "lora.dropout=0.1"
CASES = {
    "dora": ("bert", "train.learning_rate=0.01", DROPOUT),
    "adalora": ("bert", "train.learning_rate=0.02", DROPOUT),
    "vera": ("bert", "train.learning_rate=0.1", DROPOUT, "lora.rank=16"),
    "ia3": ("bert", "train.learning_rate=0.05", "lora.targets=key,value,ffn_out", "lora.dropout=0"),
    "deberta-v2": ("deberta-v2", "train.learning_rate=0.01", DROPOUT, "lora.variant=lora"),
    "modernbert": ("modernbert", "train.learning_rate=0.01", DROPOUT, "lora.variant=lora", "lora.targets=query,key,value"),
    "albert": ("albert", "train.learning_rate=0.003", DROPOUT, "lora.variant=pissa", "lora.targets=all"),
}


class Killed(Exception):
    """Represents a process that is killed."""


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {kind: make_checkpoint(folder / kind, kind) for kind in (*FOREIGN_TYPES, "bert")}


def settings(case: str, bases: dict[str, Path], data: Path, *more: str) -> Any:
    kind, *others = CASES[case]
    variant = [] if any(o.startswith("lora.variant") for o in others) else [f"lora.variant={case}"]
    return load_config("quickstart", [*SETTINGS, f"model.base={bases[kind]}", f"data.source={data}", *variant, *others, *more])


def run(config: Any, folder: Path, name: str, stop_after: int | None = None, **named: Any) -> tuple[RunSummary | None, list[float]]:
    losses: list[float] = []

    def record(event: Event) -> None:
        if isinstance(event, StepEnd):
            losses.append(event.loss)
            if event.step == stop_after:
                raise Killed

    try:
        return run_training(config, name=name, folder=folder, listeners=[record], **named), losses
    except Killed:
        return None, losses


def weights(folder: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted((folder / "model").glob("*.safetensors")))).hexdigest()


def quick(values: Iterable[Any], *first: Any) -> list[Any]:
    """Return all values, with those that are not `first` marked slow."""
    return [value if value in first else pytest.param(value, marks=pytest.mark.slow) for value in values]


@pytest.mark.parametrize("case", quick(CASES, "adalora", "modernbert"))
def test_a_run_learns_and_repeats_and_resumes_bit_for_bit(
    case: str, bases: dict[str, Path], topics_csv: Path, tmp_path: Path
) -> None:
    config = settings(case, bases, topics_csv)
    whole, losses = run(config, tmp_path, "whole")
    assert whole
    assert sum(losses[-6:]) < 0.85 * sum(losses[:6])
    torch.manual_seed(5)  # the global random state must not matter
    run(config, tmp_path, "again")
    assert weights(tmp_path / "again") == weights(tmp_path / "whole")
    assert run(config, tmp_path, "cut", stop_after=whole.steps // 2 + 3)[0] is None
    resumed, _ = run(config, tmp_path, "cut", resume=True)
    assert resumed
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert (resumed.scores, resumed.best_step) == (whole.scores, whole.best_step)
    classifier = Classifier.load(tmp_path / "whole", precision="fp32")
    scores = classifier.evaluate(topics_csv)
    assert scores["accuracy"] > 0.4  # of four classes
    assert isinstance(classifier.model, HFClassifier)
    assert describe(str(tmp_path / "whole"))["parameters"]["trainable"] == whole.counts.trainable


@pytest.mark.parametrize("stop_after", quick([2, 5, 9, 17, 25], 9))
def test_adalora_resumes_from_every_phase(bases: dict[str, Path], topics_csv: Path, tmp_path: Path, stop_after: int) -> None:
    config = settings("adalora", bases, topics_csv, "train.eval_steps=1", "train.epochs=2.5")
    whole, _ = run(config, tmp_path, "whole")
    assert whole
    run(config, tmp_path, "cut", stop_after=stop_after)
    run(config, tmp_path, "cut", resume=True)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    run(config.override("seed=7"), tmp_path, "other")
    assert weights(tmp_path / "other") != weights(tmp_path / "whole")


def test_counts_need_no_weights(bases: dict[str, Path], topics_csv: Path, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "deberta", "deberta-v2")
    (folder / "model.safetensors").unlink()
    config = ["data.classes=a,b,c,d", f"model.base={folder}", "lora.rank=4", "lora.targets=query,value", "lora.max_trainable=2000"]
    facts = describe("quickstart", config)
    assert facts["base"] == f"{folder} (deberta-v2, 3 layers, width 32)"
    assert facts["lora"]["adapted modules"] == "6: attention.self.query_proj, attention.self.value_proj"
    counts = facts["parameters"]
    assert (counts["adapter"], counts["head"], counts["trainable"]) == (6 * 4 * 64, 33 * 32 + 33 * 4, 2724)
    assert counts["total"] == counts["base"] + counts["adapter"] + counts["head"]
    assert counts["budget"] == "2,000 (724 OVER)"
    known = describe("quickstart", ["model.base=bert-base-uncased", "lora.variant=dora", "lora.rank=8", "lora.targets=query,value"])
    assert known["parameters"]["adapter"] == 24 * (8 * 1536 + 768)  # a known size: nothing was downloaded
    with pytest.raises(LoralabError, match="'deberta-v2' is not supported here"):
        budget_options("quickstart", [f"model.base={folder}"], 5000)


def test_a_run_over_the_budget_writes_nothing(bases: dict[str, Path], topics_csv: Path, tmp_path: Path) -> None:
    config = settings("deberta-v2", bases, topics_csv, "lora.max_trainable=2000")
    with pytest.raises(LoralabError, match=r"2,724 trainable parameters.*over lora.max_trainable=2,000"):
        run_training(config, folder=tmp_path)
    assert [*tmp_path.iterdir()] == []


def test_full_tuning_and_head_tuning_learn(bases: dict[str, Path], topics_csv: Path, tmp_path: Path) -> None:
    for tuning, rate in (("full", "0.002"), ("head", "0.05")):
        config = settings("deberta-v2", bases, topics_csv, f"tuning={tuning}", f"train.learning_rate={rate}")
        summary, losses = run(config, tmp_path, tuning)
        assert summary
        assert sum(losses[-6:]) < 0.9 * sum(losses[:6])
        assert summary.counts.adapter == 0
        assert summary.counts.trainable == (summary.counts.total if tuning == "full" else summary.counts.head)
        assert Classifier.load(tmp_path / tuning, precision="fp32").evaluate(topics_csv)["accuracy"] > 0.4
    names = {path.name for path in (tmp_path / "full" / "model").iterdir()}
    assert names == {"config.json", "loralab.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def test_adalora_with_too_few_steps_is_refused_before_training(bases: dict[str, Path], topics_csv: Path, tmp_path: Path) -> None:
    with pytest.raises(LoralabError, match="needs at least 4 of them: there are 3"):
        run_training(settings("adalora", bases, topics_csv, "train.max_steps=3"), folder=tmp_path)
    assert [*tmp_path.iterdir()] == []  # before anything is trained or written


def test_a_remark_names_settings_that_a_method_does_not_use() -> None:
    remarks = {
        variant: load_config("quickstart", [f"lora.variant={variant}"]).remarks() for variant in ("lora", "ia3", "vera", "adalora")
    }
    assert remarks["lora"] == []
    assert "lora.rank and lora.alpha have no effect" in remarks["ia3"][0]
    assert "lora.alpha has no effect" in remarks["vera"][0]
    assert "1.5 times lora.rank" in remarks["adalora"][0]
    log = json.dumps(remarks)
    assert log.count("lora.variant=") == 3


def test_deberta_of_version_1_trains_in_bf16(tmp_path: Path, topics_csv: Path) -> None:
    """Its biases outside linear maps once gave queries another dtype than the scores, which ended in a traceback."""
    base = make_checkpoint(tmp_path / "base", "deberta")
    shared = [f"model.base={base}", f"data.source={topics_csv}", "lora.targets=all", "train.precision=bf16", "train.max_steps=4"]
    whole, losses = run(load_config("quickstart", [*SETTINGS, *shared, "train.learning_rate=0.01"]), tmp_path, "bf16")
    assert whole
    assert len(losses) == 4
    fp32, exact = run(load_config("quickstart", [*SETTINGS, *shared, "train.precision=fp32"]), tmp_path, "fp32")
    assert fp32
    assert 0 < abs(losses[0] - exact[0]) < 0.05 * exact[0]
    with pytest.raises(LoralabError, match=r"DeBERTa \(version 1\) computes in fp32 only: set train.precision=fp32"):
        run(load_config("quickstart", [*SETTINGS, *shared, "tuning=full", "train.learning_rate=1e-4"]), tmp_path, "full")


def test_a_decoder_is_refused_as_one(tmp_path: Path, topics_csv: Path) -> None:
    base = make_checkpoint(tmp_path / "base", "bert")
    (base / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2}))
    with pytest.raises(LoralabError, match=r"'gpt2' is a decoder, .* loralab trains encoders: use model.base=minilm"):
        run_training(load_config("quickstart", [f"model.base={base}", f"data.source={topics_csv}"]), folder=tmp_path / "runs")


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_encoder_decoders_are_refused_before_training(tmp_path: Path, topics_csv: Path, kind: str) -> None:
    base = make_checkpoint(tmp_path / "base", "bert")
    content = {"model_type": kind, "d_model": 32, "num_layers": 2, "encoder_layers": 2, "is_encoder_decoder": True}
    (base / "config.json").write_text(json.dumps(content))
    with pytest.raises(LoralabError, match=f"'{kind}' is an encoder-decoder, and loralab trains encoders: use model.base=minilm"):
        run_training(load_config("quickstart", [f"model.base={base}", f"data.source={topics_csv}"]), folder=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
