"""A soup is the mean of its members' weights, as one bundle, and says no more of itself than was tested."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sealing import reseal
from tiny import make_checkpoint

from loralab import Classifier, LoralabError, load_config
from loralab.cli.main import app
from loralab.inference.model_soup import make_soup
from loralab.info import describe
from loralab.model.bundle import load_bundle
from loralab.model.manifest import read_manifest
from loralab.pipeline import run_training
from loralab.storage.run_predictions import read_test_texts

TEXTS = ["goal striker league", "profit shares bank " * 30, "", "telescope robot", "border treaty"]


def train(folder: Path, data: Path, base: Path, name: str, *more: str) -> Path:
    settings = [f"model.base={base}", "train.learning_rate=0.01", "train.epochs=2", "train.precision=fp32", *more]
    return run_training(load_config(data, settings), folder=folder, name=name).folder


@pytest.fixture(scope="module")
def members(tiny: Path, topics_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three seeds, of different ranks and scales."""
    folder = tmp_path_factory.mktemp("runs")
    settings = (["lora.rank=2"], ["lora.rank=4", "lora.variant=rslora"], ["lora.rank=2", "lora.alpha=3", "lora.variant=pissa"])
    rows = "data.validation=24"  # enough for a temperature
    return [train(folder, topics_csv, tiny, f"s{seed}", f"seed={seed}", rows, *more) for seed, more in enumerate(settings)]


def logits(path: Path) -> np.ndarray:
    return Classifier.load(path, precision="fp32").logits(TEXTS)


def test_the_soup_computes_with_the_mean_of_all_weights(members: list[Path], tmp_path: Path) -> None:
    found = make_soup(members, tmp_path / "soup")
    assert found.rank == 2 + 4 + 2 * 2  # PiSSA's adapters are saved with twice their rank
    networks = [load_bundle(run / "model")[0] for run in members]
    mean, _ = load_bundle(members[0] / "model")
    for layer, role, adapter in mean.adapters():
        deltas = [next(a.delta() for i, r, a in n.adapters() if (i, r) == (layer, role)) for n in networks]
        projection = next(p for p in mean.layer(layer).projections() if role in p.roles)
        with torch.no_grad():
            projection.weight[projection.rows(role)] += torch.stack(deltas).mean(dim=0)
            adapter.b.zero_()
    with torch.no_grad():
        for parameter, *each in zip(mean.head.parameters(), *(n.head.parameters() for n in networks), strict=True):
            parameter.copy_(torch.stack(each).mean(dim=0))
    expected = Classifier.load(members[0], precision="fp32")
    expected.model = mean
    np.testing.assert_allclose(logits(found.folder), expected.logits(TEXTS), atol=1e-5)
    assert not np.allclose(logits(found.folder), logits(members[0]), atol=1e-2)


def test_its_temperature_is_the_geometric_mean_of_theirs(members: list[Path], tmp_path: Path) -> None:
    theirs = [read_manifest(run / "model").temperature for run in members]
    assert len(set(theirs)) == 3
    found = read_manifest(make_soup(members, tmp_path / "soup").folder).temperature
    assert found == pytest.approx(np.prod(theirs) ** (1 / 3))


def test_it_is_tested_on_what_its_members_were_tested_on(members: list[Path], tmp_path: Path) -> None:
    found = make_soup(members, tmp_path / "soup")
    texts, truths = read_test_texts(members[0])
    right = [a == b for a, b in zip(Classifier.load(found.folder).predict(texts).labels, truths, strict=True)]
    assert found.accuracy == np.mean(right)
    assert found.test_rows == len(texts) > 10
    assert found.accuracies == tuple(json.loads((run / "scores.json").read_text())["scores"]["accuracy"] for run in members)


def test_members_tested_on_different_rows_leave_its_accuracy_open(
    members: list[Path], tiny: Path, topics_csv: Path, tmp_path: Path
) -> None:
    other = train(tmp_path, topics_csv, tiny, "other", "data.split_seed=7")
    assert make_soup([members[0], other], tmp_path / "soup").accuracy is None


def test_runs_that_read_texts_differently_are_refused(members: list[Path], tmp_path: Path) -> None:
    other = Path(shutil.copytree(members[1], tmp_path / "other"))
    path = other / "model" / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"lowercase":true', '"lowercase":false'), encoding="utf-8")
    reseal(other)
    assert path.read_bytes() != (members[1] / "model" / "tokenizer.json").read_bytes()
    with pytest.raises(LoralabError, match=r"other and .* read texts differently \(tokenizer, data\.max_length, data\.template"):
        make_soup([members[0], other], tmp_path / "soup")
    assert not (tmp_path / "soup").exists()


def test_a_lower_rank_is_the_nearest_one(members: list[Path], tmp_path: Path) -> None:
    whole, same, cut = (make_soup(members, tmp_path / str(rank), rank=rank) for rank in (None, 10, 3))
    assert (same.rank, cut.rank) == (10, 3)
    np.testing.assert_allclose(logits(same.folder), logits(whole.folder), atol=1e-5)
    for (_, _, full), (_, _, thin) in zip(
        load_bundle(whole.folder)[0].adapters(), load_bundle(cut.folder)[0].adapters(), strict=True
    ):
        assert thin.a.shape[0] == thin.b.shape[1] == 3
        missing = torch.linalg.svdvals(full.delta())[3:].square().sum().sqrt()
        torch.testing.assert_close(torch.linalg.norm(full.delta() - thin.delta()), missing, rtol=1e-3, atol=1e-6)


def test_a_soup_over_the_runs_budget_is_noticed_and_a_fitting_rank_fits(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    """A rank of query and value costs 2 · (32 + 32) parameters in each of 3 layers; the head has 4 · 33."""
    budget = 3 * 2 * 64 * 8 + 4 * 33
    more = ("train.max_steps=1", "lora.rank=8", "lora.targets=query,value")
    tight, loose = budget + 384, budget + 10_000
    runs = [
        train(tmp_path, topics_csv, tiny, f"s{limit}", f"seed={limit}", f"lora.max_trainable={limit}", *more)
        for limit in (loose, tight)
    ]
    whole = make_soup(runs, tmp_path / "whole")
    head = whole.parameters - 3 * 2 * 64 * 16
    assert whole.parameters == sum(tensor.nelement() for tensor in load_file(whole.folder / "adapter_model.safetensors").values())
    assert (whole.rank, whole.budget, whole.over_budget) == (16, tight, True)
    assert (head, whole.fitting_rank) == (4 * 33, 9)
    for words in (f"{whole.parameters:,} parameters", f"lora.max_trainable={tight:,}", f"--rank {whole.fitting_rank} fits"):
        assert words in whole.remark()
    small = make_soup(runs, tmp_path / "small", rank=whole.fitting_rank)
    assert small.parameters <= tight < small.parameters + 384
    assert not small.over_budget
    assert small.remark() == ""


def test_runs_without_a_budget_have_none_to_exceed(members: list[Path], tmp_path: Path) -> None:
    soup = make_soup(members, tmp_path / "soup")
    assert (soup.budget, soup.fitting_rank, soup.over_budget, soup.remark()) == (None, None, False, "")


def test_a_soup_and_a_saved_model_can_be_described(members: list[Path], tmp_path: Path) -> None:
    soup = make_soup(members, tmp_path / "soup")
    facts = describe(str(soup.folder))
    assert facts["parameters"]["adapter"] + facts["parameters"]["head"] == soup.parameters
    assert facts["lora"]["rank"] == 10
    assert facts["soup"]["members"] == [str(run) for run in members]
    assert facts["soup"]["accuracy"] == soup.accuracy
    run, model = (describe(str(path)) for path in (members[0], members[0] / "model"))
    assert {key: run["parameters"][key] for key in ("base", "adapter", "head")}.items() <= model["parameters"].items()
    with pytest.raises(LoralabError, match="is a model, and its settings are fixed"):
        describe(str(soup.folder), ["seed=1"])


def test_peft_opens_it(members: list[Path], tmp_path: Path, tiny: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    folder = make_soup(members, tmp_path / "soup").folder
    theirs = PeftModel.from_pretrained(AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=4), folder).eval()
    ours = Classifier.load(folder, precision="fp32")
    encoded = ours.tokenizer.encode(TEXTS[0])
    with torch.no_grad():
        found = theirs(input_ids=torch.tensor([encoded.ids])).logits.numpy()
    np.testing.assert_allclose(found[0], logits(folder)[0], atol=1e-4)


@pytest.mark.parametrize("tuning", ["full", "head"])
def test_without_adapters_the_trained_weights_are_averaged(tuning: str, tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    runs = [train(tmp_path, topics_csv, tiny, f"s{seed}", f"tuning={tuning}", f"seed={seed}") for seed in range(2)]
    found = make_soup(runs, tmp_path / "soup")
    assert found.rank is None
    weights = [dict(load_bundle(folder)[0].named_parameters()) for folder in (*(run / "model" for run in runs), found.folder)]
    for name, weight in weights[2].items():
        torch.testing.assert_close(weight, (weights[0][name] + weights[1][name]) / 2)
    with pytest.raises(LoralabError, match="have no adapters"):
        make_soup(runs, tmp_path / "cut", rank=2)


def test_what_cannot_be_averaged_is_refused_and_nothing_is_written(
    members: list[Path], tiny: Path, topics_csv: Path, tmp_path: Path
) -> None:
    other = make_checkpoint(tmp_path / "base", "bert", seed=5)
    odd = {
        "base_sha256": train(tmp_path, topics_csv, other, "other"),
        "pooling is 'cls' and 'mean'": train(tmp_path, topics_csv, tiny, "mean", "model.pooling=mean"),
        "do not adapt the same maps": train(tmp_path, topics_csv, tiny, "key", "lora.targets=key"),
    }
    for said, run in odd.items():
        with pytest.raises(LoralabError, match=said):
            make_soup([members[0], run], tmp_path / "soup")
    with pytest.raises(LoralabError, match="at least two runs"):
        make_soup([members[0], members[0]], tmp_path / "soup")
    assert not (tmp_path / "soup").exists()


def test_nothing_is_overwritten_that_was_not_a_soup(members: list[Path], tmp_path: Path) -> None:
    folder = make_soup(members[:2], tmp_path / "soup").folder
    with pytest.raises(LoralabError, match="--overwrite"):
        make_soup(members, folder)
    assert len(make_soup(members, folder, overwrite=True).members) == 3
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(LoralabError, match="is not a soup"):
        make_soup(members, mine, overwrite=True)
    assert (mine / "thesis.txt").is_file()


def test_from_the_command_line_to_a_prediction(members: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app(["soup", *map(str, members), "--out", str(tmp_path / "soup")], standalone_mode=False)
    said = capsys.readouterr().out
    assert "3 runs" in said
    assert "test rows; the runs: mean" in said
    app(["soup", *map(str, members), "--out", str(tmp_path / "soup"), "--overwrite", "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["rank"] == 10
    app(["predict", str(tmp_path / "soup"), "--input", "goal striker"], standalone_mode=False)
    assert "goal striker" in capsys.readouterr().out
