"""Parameter counts equal golden numbers, peft's, Transformers' and the model's; budget options fit."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import EVERY, ours, peft_classifier, transformers_classifier
from tiny import MODEL_TYPES, make_checkpoint

from loralab.config import LoraConfig
from loralab.errors import LoralabError
from loralab.model.architectures import KNOWN, Dimensions
from loralab.model.build import check_budget, check_counts
from loralab.model.parameter_counts import ParameterCounts, count_from_shapes, solve_budget

ROBERTA = KNOWN["roberta-base"]


@pytest.mark.parametrize(
    ("base", "rank", "targets", "layers", "adapter", "trainable"),
    [
        ("roberta-base", 8, ("query", "value"), None, 294_912, 888_580),
        ("roberta-base", 8, ("query", "value"), "9-11", 73_728, 667_396),
        ("roberta-base", 22, ("value",), None, 405_504, 999_172),
        ("roberta-base", 23, ("value",), None, 423_936, 1_017_604),
        ("roberta-base", 11, ("query", "value"), None, 405_504, 999_172),
        ("distilbert-base-uncased", 8, ("query", "value"), None, 147_456, 741_124),
    ],
)
def test_golden_counts(base: str, rank: int, targets: tuple[str, ...], layers: str | None, adapter: int, trainable: int) -> None:
    found = count_from_shapes(
        KNOWN[base], 4, head="default", tuning="lora", lora=LoraConfig(rank=rank, targets=targets, layers=layers)
    )
    assert (found.adapter, found.head, found.trainable) == (adapter, 593_668, trainable)


def test_golden_total_and_share() -> None:
    found = count_from_shapes(ROBERTA, 4, head="default", tuning="lora", lora=LoraConfig(rank=8))
    assert found.total == 124_943_620
    assert found.share == pytest.approx(888_580 / 124_943_620)


def published(name: str) -> Any:
    """The architecture at its published size, without memory, by Transformers."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    dims = KNOWN[name]
    sizes: dict[str, Any] = {"vocab_size": dims.vocabulary, "max_position_embeddings": dims.positions, "num_labels": 4}
    if dims.model_type == "distilbert":
        sizes |= {"n_layers": dims.layers, "dim": dims.width, "n_heads": dims.heads, "hidden_dim": dims.ffn_width}
    else:
        sizes |= {
            "num_hidden_layers": dims.layers,
            "hidden_size": dims.width,
            "num_attention_heads": dims.heads,
            "intermediate_size": dims.ffn_width,
            "type_vocab_size": dims.token_types,
        }
    if dims.model_type == "electra":
        sizes["embedding_size"] = dims.embedding_width
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(AutoConfig.for_model(dims.model_type, **sizes))


@pytest.mark.parametrize("name", sorted(set(KNOWN) - {"roberta-large"}))
def test_published_sizes_equal_transformers_parameter_count(name: str) -> None:
    found = count_from_shapes(KNOWN[name], 4, head="default", tuning="full", lora=LoraConfig())
    assert found.adapter == 0
    assert found.trainable == found.total == published(name).num_parameters()


@pytest.mark.parametrize("kind", MODEL_TYPES)
@pytest.mark.parametrize(
    ("targets", "layers"), [(("query", "value"), None), (EVERY, "1-2"), (("output", "ffn_in"), "0")], ids=["qv", "all", "one"]
)
def test_counts_equal_peft(checkpoints: dict[str, Path], kind: str, targets: tuple[str, ...], layers: str | None) -> None:
    numbers = {None: (0, 1, 2), "1-2": (1, 2), "0": (0,)}[layers]
    heads = ["pre_classifier", "classifier"] if kind == "distilbert" else ["classifier"]
    theirs = peft_classifier(checkpoints[kind], kind, targets, numbers, r=5, modules_to_save=heads)
    mine = ours(checkpoints[kind], tuning="lora", lora=LoraConfig(rank=5, targets=targets, layers=layers)).parameter_counts()
    assert mine.trainable == theirs.get_nb_trainable_parameters()[0]
    assert mine.base + mine.head == transformers_classifier(checkpoints[kind]).num_parameters()


CONFIGURATIONS = [
    (kind, tuning, head, *choice)
    for kind, tuning, head in itertools.product(MODEL_TYPES, ("lora", "full", "head"), ("default", "linear"))
    for choice in (
        [
            (8, ("query", "value"), None, 4),
            (1, ("all",), "2", 2),
            (3, ("key", "output", "ffn_out"), "0,2", 7),
            (17, ("ffn_in",), "1-2", 3),
        ]
        if tuning == "lora"
        else [(8, ("query",), None, 5)]
    )
]


@pytest.mark.parametrize(
    ("kind", "tuning", "head", "rank", "targets", "layers", "classes"),
    CONFIGURATIONS,
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else str(value),
)
def test_the_models_count_equals_the_formula(
    checkpoints: dict[str, Path],
    kind: str,
    tuning: str,
    head: str,
    rank: int,
    targets: tuple[str, ...],
    layers: str | None,
    classes: int,
) -> None:
    assert len(CONFIGURATIONS) >= 30
    lora = LoraConfig(rank=rank, targets=targets, layers=layers)
    model = ours(checkpoints[kind], head=head, tuning=tuning, lora=lora, classes=classes)
    formula = count_from_shapes(model.dims, classes, head=head, tuning=tuning, lora=lora)
    # Counted by name, apart from parameter_counts: BERT's pooler (head.dense) belongs to its base.
    sizes = {"base": 0, "adapter": 0, "head": 0, "trainable": 0}
    for name, parameter in model.named_parameters():
        pooler = kind == "bert" and name.startswith("head.dense")
        part = "adapter" if ".adapters." in name else "head" if name.startswith("head.") and not pooler else "base"
        sizes[part] += parameter.numel()
        sizes["trainable"] += parameter.numel() if parameter.requires_grad else 0
    assert formula == ParameterCounts(**sizes)
    assert check_counts(model, tuning=tuning, lora=lora) == formula


BUDGETS = [
    ("roberta-base", "default", 1_000_000, None),
    ("roberta-base", "default", 600_000, None),
    ("roberta-base", "default", 602_000, "9-11"),
    ("roberta-base", "linear", 300_000, None),
    ("roberta-base", "linear", 8_000, None),
    ("roberta-base", "linear", 90_000_000, None),
    ("distilbert-base-uncased", "default", 741_124, None),
    ("bert-base-uncased", "default", 100_000, "0,5"),
    ("google/electra-small-discriminator", "default", 200_000, None),
    ("google/electra-small-discriminator", "default", 70_000_000, None),
]


@pytest.mark.parametrize(("name", "head", "budget", "layers"), BUDGETS)
def test_every_option_is_within_the_budget_and_the_next_rank_is_not(name: str, head: str, budget: int, layers: str | None) -> None:
    dims = KNOWN[name]
    fits = solve_budget(dims, 4, head=head, max_trainable=budget, layers=layers)
    assert fits

    def trainable(fit: Any, rank: int) -> int:
        return count_from_shapes(
            dims, 4, head=head, tuning="lora", lora=LoraConfig(rank=rank, targets=fit.targets, layers=fit.layers)
        ).trainable

    for fit in fits:
        assert fit.rank >= 1
        assert fit.trainable == trainable(fit, fit.rank) <= budget
        # More than the width of a map adds nothing: there the rank is capped.
        assert trainable(fit, fit.rank + 1) > budget or fit.rank == dims.width
        assert fit.rank <= dims.width
        assert layers is None or fit.layers == layers
    assert [fit.trainable for fit in fits] == sorted((fit.trainable for fit in fits), reverse=True)
    assert len({(fit.targets, fit.layers) for fit in fits}) == len(fits)


def test_the_budget_of_a_million_offers_the_golden_ranks() -> None:
    fits = solve_budget(ROBERTA, 4, head="default", max_trainable=1_000_000)
    ranks = {(fit.targets, fit.layers): (fit.rank, fit.trainable) for fit in fits}
    assert ranks[("value",), None] == (22, 999_172)
    assert ranks[("query", "value"), None] == (11, 999_172)


@pytest.mark.parametrize("budget", [593_668, 1, 593_667])
def test_too_small_a_budget_names_sufficient_budgets_and_heads(budget: int) -> None:
    with pytest.raises(LoralabError) as caught:
        solve_budget(ROBERTA, 4, head="default", max_trainable=budget)
    message = str(caught.value)
    assert f"{budget:,}" in message
    assert "593,668" in message
    needed, linear = (int(n.replace(",", "")) for n in re.findall(r"budget to ([\d,]+)|linear \(([\d,]+)", message) for n in n if n)
    assert solve_budget(ROBERTA, 4, head="default", max_trainable=needed)
    assert count_from_shapes(ROBERTA, 4, head="linear", tuning="head", lora=LoraConfig()).trainable == linear


OVER = [
    ("roberta-base", "default", 1_000_000, LoraConfig(rank=64)),
    ("roberta-base", "default", 1_000_000, LoraConfig(rank=23, targets=("value",))),
    ("roberta-base", "default", 700_000, LoraConfig(rank=8)),
    ("roberta-base", "default", 650_000, LoraConfig(rank=8)),
    ("roberta-base", "default", 620_000, LoraConfig(rank=16, targets=("all",))),
    ("roberta-base", "default", 660_000, LoraConfig(rank=8, layers="9-11")),
    ("roberta-base", "default", 620_000, LoraConfig(rank=300, targets=("query", "key", "ffn_in"), layers="0")),
    ("roberta-base", "linear", 20_000, LoraConfig(rank=8)),
    ("distilbert-base-uncased", "default", 741_123, LoraConfig(rank=8)),
    ("bert-base-uncased", "default", 30_000, LoraConfig(rank=4, targets=("value",))),
    ("google/electra-small-discriminator", "default", 80_000, LoraConfig(rank=8)),
]


@pytest.mark.parametrize(("name", "head", "budget", "lora"), OVER)
def test_configurations_in_the_over_budget_message_fit(name: str, head: str, budget: int, lora: LoraConfig) -> None:
    dims = KNOWN[name]
    counts = count_from_shapes(dims, 4, head=head, tuning="lora", lora=lora)
    assert counts.trainable > budget
    with pytest.raises(LoralabError) as caught:
        check_budget(counts, dims, 4, head=head, lora=lora.model_copy(update={"max_trainable": budget}))
    message = str(caught.value)
    assert f"{counts.trainable:,}" in message
    assert f"lora.max_trainable={budget:,}" in message
    offers = re.findall(r"((?:lora\.\w+=\S+ )+)\(([\d,]+)\)", message)
    assert offers
    for settings, number in offers:
        said = dict(setting.removeprefix("lora.").split("=", 1) for setting in settings.split())
        changed = LoraConfig(rank=int(said["rank"]), targets=said["targets"], layers=said.get("layers", lora.layers))
        # The user changes what the message names and nothing else.
        then = count_from_shapes(dims, 4, head=head, tuning="lora", lora=changed)
        assert then.trainable <= budget, message
        assert f"{then.trainable:,}" == number, message


def test_the_budget_itself_is_allowed_and_one_less_is_not(checkpoints: dict[str, Path]) -> None:
    model = ours(checkpoints["bert"], tuning="lora")
    trainable = model.parameter_counts().trainable
    assert check_counts(model, tuning="lora", lora=LoraConfig(max_trainable=trainable)).trainable == trainable
    with pytest.raises(LoralabError, match=f"{trainable:,} trainable"):
        check_counts(model, tuning="lora", lora=LoraConfig(max_trainable=trainable - 1))


def test_full_tuning_over_the_budget_suggests_lora(checkpoints: dict[str, Path]) -> None:
    model = ours(checkpoints["bert"], tuning="full")
    with pytest.raises(LoralabError, match="tuning=lora"):
        check_counts(model, tuning="full", lora=LoraConfig(max_trainable=10_000))


def test_a_count_that_differs_from_the_formula_is_a_bug(checkpoints: dict[str, Path]) -> None:
    model = ours(checkpoints["bert"], tuning="lora")
    model.embeddings.word.weight.requires_grad_(True)
    with pytest.raises(AssertionError, match="formula"):
        check_counts(model, tuning="lora", lora=LoraConfig())


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_shallow_encoders_have_options(tmp_path: Path, layers: int) -> None:
    model = ours(make_checkpoint(tmp_path / "base", layers=layers))
    dims: Dimensions = model.dims
    for fit in solve_budget(dims, 4, head="linear", max_trainable=2_000):
        counts = count_from_shapes(
            dims, 4, head="linear", tuning="lora", lora=LoraConfig(rank=fit.rank, targets=fit.targets, layers=fit.layers)
        )
        assert counts.trainable == fit.trainable <= 2_000
