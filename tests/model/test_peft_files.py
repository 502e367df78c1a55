"""peft opens our adapters and we open peft's, with equal logits; anything but plain LoRA is refused."""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import (
    EVERY,
    bundle,
    hidden_of,
    largest_difference,
    logits_of,
    ours,
    padded_batch,
    peft_classifier,
    randomise,
    randomise_peft,
    transformers_classifier,
    transformers_encoder,
)
from safetensors.torch import load_file
from tiny import MODEL_TYPES, make_checkpoint
from torch import Tensor, nn

from loralab.config import LoraConfig
from loralab.data.tokenize import load_tokenizer
from loralab.errors import LoralabError
from loralab.inference.classifier import Classifier
from loralab.model.bundle import load_bundle
from loralab.model.hf.model import HFClassifier

every_architecture = pytest.mark.parametrize("kind", MODEL_TYPES)
LORAS = [
    LoraConfig(rank=3, alpha=6, targets=("query", "value")),
    LoraConfig(rank=2, alpha=8, targets=("output", "ffn_out"), layers="1-2", variant="rslora"),
    LoraConfig(rank=4, alpha=4, dropout=0.2, targets=EVERY, layers="0,2"),
]
HEADS = {
    "bert": ["classifier"],
    "roberta": ["classifier"],
    "xlm-roberta": ["classifier"],
    "electra": ["classifier"],
    "distilbert": ["pre_classifier", "classifier"],
}


def open_in_peft(model: nn.Module, folder: Path) -> Any:
    """Open an adapter as a user of peft would; any warning, such as that of missing or unexpected keys, is an error."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return PeftModel.from_pretrained(copy.deepcopy(model), folder).eval()


@every_architecture
@pytest.mark.parametrize("lora", LORAS, ids=lambda lora: "+".join(lora.targets))
def test_our_classifier_opens_in_peft(checkpoints: dict[str, Path], tmp_path: Path, kind: str, lora: LoraConfig) -> None:
    model = randomise(ours(checkpoints[kind], tuning="lora", lora=lora))
    folder = bundle(tmp_path / "bundle", model, checkpoints[kind], tuning="lora", lora=lora)
    plain = transformers_classifier(checkpoints[kind])
    theirs = open_in_peft(plain, folder)
    tokens, mask = padded_batch(checkpoints[kind])
    expected = logits_of(model, tokens, mask)
    assert largest_difference(expected, logits_of(plain, tokens, mask)) > 0.05
    assert largest_difference(logits_of(theirs, tokens, mask), expected) < 1e-5
    # Every tensor of ours found its place: saved again by peft, the file is the same.
    theirs.save_pretrained(tmp_path / "again")
    saved, again = (load_file(path / "adapter_model.safetensors") for path in (folder, tmp_path / "again"))
    assert set(again) == set(saved)
    assert all(torch.equal(again[name], tensor) for name, tensor in saved.items())


@every_architecture
@pytest.mark.parametrize(("pooling", "head"), [("mean", "linear"), ("cls", "linear"), ("mean", "default")])
def test_our_adapter_with_another_head_opens_in_peft_over_the_bare_encoder(
    checkpoints: dict[str, Path], tmp_path: Path, kind: str, pooling: str, head: str
) -> None:
    lora = LoraConfig(rank=3, alpha=6, targets=("query", "output", "ffn_out"), layers="0,2")
    model = randomise(ours(checkpoints[kind], pooling=pooling, head=head, tuning="lora", lora=lora))
    folder = bundle(tmp_path / "bundle", model, checkpoints[kind], tuning="lora", lora=lora)
    plain = transformers_encoder(checkpoints[kind])
    theirs = open_in_peft(plain, folder)
    tokens, mask = padded_batch(checkpoints[kind])
    hidden = hidden_of(theirs, tokens, mask)
    assert largest_difference(hidden[mask], hidden_of(plain, tokens, mask)[mask]) > 0.05
    with torch.no_grad():
        mine = model.encode(model.embeddings(tokens, torch.float32), mask)
    assert largest_difference(mine[mask], hidden[mask]) < 1e-5
    if head == "linear":
        saved = load_file(folder / "head.safetensors")
        assert set(saved) == {"head.out.weight", "head.out.bias"}
        pooled = hidden[:, 0] if pooling == "cls" else (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        logits = pooled @ saved["head.out.weight"].T + saved["head.out.bias"]
        assert largest_difference(logits_of(model, tokens, mask), logits) < 1e-5


def test_our_adapter_opens_by_peft_s_auto_class_that_finds_the_base(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    from peft import AutoPeftModelForSequenceClassification

    model = randomise(ours(checkpoints["roberta"], tuning="lora"))
    folder = bundle(tmp_path / "bundle", model, checkpoints["roberta"], tuning="lora")
    theirs = AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=4).eval()
    tokens, mask = padded_batch(checkpoints["roberta"])
    assert largest_difference(logits_of(theirs, tokens, mask), logits_of(model, tokens, mask)) < 1e-5


def saved_by_peft(folder: Path, base: Path, kind: str, roles: tuple[str, ...], layers: tuple[int, ...], **settings: Any) -> Any:
    model = peft_classifier(base, kind, roles, layers, **{"r": 3, "lora_alpha": 6, "modules_to_save": HEADS[kind], **settings})
    model.save_pretrained(folder)
    return model


@every_architecture
@pytest.mark.parametrize("rslora", [False, True], ids=["lora", "rslora"])
@pytest.mark.parametrize(("roles", "layers"), [(("query", "value"), (0, 1, 2)), (EVERY, (1,)), (("key", "ffn_out"), (0, 2))])
def test_peft_s_adapter_opens_here(
    checkpoints: dict[str, Path], tmp_path: Path, kind: str, roles: tuple[str, ...], layers: tuple[int, ...], rslora: bool
) -> None:
    theirs = saved_by_peft(tmp_path / "peft", checkpoints[kind], kind, roles, layers, use_rslora=rslora)
    tokens, mask = padded_batch(checkpoints[kind])
    expected = logits_of(theirs, tokens, mask)
    assert largest_difference(expected, logits_of(transformers_classifier(checkpoints[kind]), tokens, mask)) > 0.05
    model, manifest = load_bundle(tmp_path / "peft")
    assert largest_difference(logits_of(model, tokens, mask), expected) < 1e-5
    assert manifest.classes == ("0", "1", "2", "3")


@every_architecture
def test_a_classifier_of_a_peft_folder_gives_peft_s_probabilities(checkpoints: dict[str, Path], tmp_path: Path, kind: str) -> None:
    theirs = saved_by_peft(tmp_path / "peft", checkpoints[kind], kind, ("query", "value"), (0, 1, 2))
    texts = ["Chip profit falls.", "a goal", "The minister of the border said so"]
    loaded = Classifier.load(tmp_path / "peft", precision="fp32").predict(texts)
    tokenizer = load_tokenizer(checkpoints[kind], 128)
    for text, probabilities in zip(texts, loaded.probabilities, strict=True):
        tokens = torch.tensor([tokenizer.encode(text).ids])
        expected = logits_of(theirs, tokens, torch.ones_like(tokens, dtype=torch.bool)).softmax(-1)[0]
        np.testing.assert_allclose(probabilities, expected.numpy(), atol=1e-5)


def test_a_peft_folder_opens_with_its_base_at_another_place(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    theirs = saved_by_peft(tmp_path / "peft", checkpoints["roberta"], "roberta", ("query",), (0,))
    path = tmp_path / "peft" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": "/gone/roberta"}))
    with pytest.raises(LoralabError, match="/gone/roberta"):
        load_bundle(tmp_path / "peft")
    model, _ = load_bundle(tmp_path / "peft", str(checkpoints["roberta"]))
    tokens, mask = padded_batch(checkpoints["roberta"])
    assert largest_difference(logits_of(model, tokens, mask), logits_of(theirs, tokens, mask)) < 1e-5


def test_bert_s_pooler_is_taken_over_where_peft_trained_it(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    theirs = saved_by_peft(
        tmp_path / "peft", checkpoints["bert"], "bert", ("query",), (0, 1), modules_to_save=["classifier", "pooler"]
    )
    assert any("pooler" in name for name in load_file(tmp_path / "peft" / "adapter_model.safetensors"))
    model, _ = load_bundle(tmp_path / "peft")
    tokens, mask = padded_batch(checkpoints["bert"])
    assert largest_difference(logits_of(model, tokens, mask), logits_of(theirs, tokens, mask)) < 1e-5


def test_any_number_of_classes_of_a_peft_folder(tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base", "roberta", classes=7)
    model = copy.deepcopy(transformers_classifier(base, 7))
    from peft import LoraConfig, get_peft_model

    theirs = randomise_peft(get_peft_model(model, LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"]))).eval()
    theirs.save_pretrained(tmp_path / "peft")
    ours, manifest = load_bundle(tmp_path / "peft")
    assert manifest.classes == tuple("0123456")
    tokens, mask = padded_batch(base)
    assert largest_difference(logits_of(ours, tokens, mask), logits_of(theirs, tokens, mask)) < 1e-5


def with_dora(folder: Path, base: Path) -> None:
    saved_by_peft(folder, base, "bert", ("query",), (0, 1), use_dora=True)


def with_rank_pattern(folder: Path, base: Path) -> None:
    saved_by_peft(folder, base, "bert", ("query", "value"), (0, 1), rank_pattern={"value": 5})


def with_alpha_pattern(folder: Path, base: Path) -> None:
    saved_by_peft(folder, base, "bert", ("query", "value"), (0, 1), alpha_pattern={"value": 5})


def with_all_biases(folder: Path, base: Path) -> None:
    saved_by_peft(folder, base, "bert", ("query",), (0, 1), bias="all")


def with_adapter_biases(folder: Path, base: Path) -> None:
    saved_by_peft(folder, base, "bert", ("query",), (0, 1), bias="lora_only")


def with_a_bias_of_b(folder: Path, base: Path) -> None:
    saved_by_peft(folder, base, "bert", ("query",), (0, 1), lora_bias=True)


def with_ia3(folder: Path, base: Path) -> None:
    from peft import IA3Config, get_peft_model

    model = copy.deepcopy(transformers_classifier(base))
    config = IA3Config(task_type="SEQ_CLS", target_modules=["key", "value", "output.dense"], feedforward_modules=["output.dense"])
    randomise_peft(get_peft_model(model, config)).save_pretrained(folder)


def with_an_adapter_on_the_pooler(folder: Path, base: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = copy.deepcopy(transformers_classifier(base))
    config = LoraConfig(task_type="SEQ_CLS", target_modules="all-linear")  # BERT's pooler is among them
    randomise_peft(get_peft_model(model, config)).save_pretrained(folder)


def with_an_adapter_on_the_embeddings(folder: Path, base: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = copy.deepcopy(transformers_classifier(base))
    config = LoraConfig(task_type="SEQ_CLS", target_modules=["query", "word_embeddings"])
    randomise_peft(get_peft_model(model, config)).save_pretrained(folder)


def with_layers_adapted_differently(folder: Path, base: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = copy.deepcopy(transformers_classifier(base))
    config = LoraConfig(task_type="SEQ_CLS", target_modules=["layer.0.attention.self.query", "layer.1.attention.self.value"])
    randomise_peft(get_peft_model(model, config)).save_pretrained(folder)


def with_trained_norms(folder: Path, base: Path) -> None:
    saved_by_peft(folder, base, "bert", ("query",), (0, 1), modules_to_save=["classifier", "LayerNorm"])


def with_trained_embeddings(folder: Path, base: Path) -> None:
    saved_by_peft(folder, base, "bert", ("query",), (0, 1), modules_to_save=["classifier", "word_embeddings"])


def with_trained_token_rows(folder: Path, base: Path) -> None:
    saved_by_peft(folder, base, "bert", ("query",), (0, 1), trainable_token_indices=[7, 8])


def with_pissa(folder: Path, base: Path) -> None:
    saved_by_peft(folder, base, "bert", ("query",), (0, 1), init_lora_weights="pissa")


def with_olora(folder: Path, base: Path) -> None:
    saved_by_peft(folder, base, "bert", ("query",), (0, 1), init_lora_weights="olora")


def without_a_head(folder: Path, base: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = copy.deepcopy(transformers_encoder(base))
    randomise_peft(get_peft_model(model, LoraConfig(target_modules=["query"]))).save_pretrained(folder)


ONLY_PEFT = [
    with_dora,
    with_rank_pattern,
    with_alpha_pattern,
    with_all_biases,
    with_adapter_biases,
    with_a_bias_of_b,
    with_an_adapter_on_the_pooler,
    with_an_adapter_on_the_embeddings,
    with_layers_adapted_differently,
    with_trained_norms,
    with_trained_embeddings,
    with_trained_token_rows,
]
"""What the native encoder does not compute."""
REFUSED: list[tuple[Callable[[Path, Path], None], str]] = [
    (with_ia3, "IA3"),
    (with_pissa, "pissa"),
    (with_olora, "olora"),
    (without_a_head, "without a classification head"),
]


@pytest.mark.filterwarnings("ignore")  # peft warns of some of these settings
@pytest.mark.parametrize("save", ONLY_PEFT, ids=lambda save: save.__name__)
def test_other_kinds_of_lora_open_through_peft(checkpoints: dict[str, Path], tmp_path: Path, save: Callable[..., None]) -> None:
    from peft import PeftModel

    save(tmp_path / "peft", checkpoints["bert"])
    plain = transformers_classifier(checkpoints["bert"])
    tokens, mask = padded_batch(checkpoints["bert"])
    expected = logits_of(PeftModel.from_pretrained(copy.deepcopy(plain), tmp_path / "peft").eval(), tokens, mask)
    model, manifest = load_bundle(tmp_path / "peft")
    assert manifest.by_peft
    assert isinstance(model, HFClassifier)
    assert largest_difference(expected, logits_of(plain, tokens, mask)) > 0.01
    with torch.no_grad():
        assert largest_difference(model(tokens, mask), expected) < 1e-4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("save", "words"), REFUSED, ids=[save.__name__ for save, _ in REFUSED])
def test_an_unsupported_adapter_is_refused(
    checkpoints: dict[str, Path], tmp_path: Path, save: Callable[[Path, Path], None], words: str
) -> None:
    save(tmp_path / "peft", checkpoints["bert"])
    assert (tmp_path / "peft" / "adapter_config.json").is_file()
    with pytest.raises(LoralabError, match=words):
        load_bundle(tmp_path / "peft")


ENCODERS = {"albert": ["classifier"], "deberta-v2": ["pooler", "classifier"], "modernbert": ["head", "classifier"]}
ENCODERS |= {"deberta": ["pooler", "classifier"], "mpnet": ["classifier"]}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("targets", ["all-linear", "some"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_adapters_of_other_encoders_open(tmp_path: Path, kind: str, targets: str) -> None:
    from peft import LoraConfig, get_peft_model

    base = make_checkpoint(tmp_path / "base", kind)
    some = {"deberta-v2": "query_proj", "modernbert": "Wqkv", "deberta": "in_proj", "mpnet": "q", "albert": "query"}
    chosen = [some[kind]] if targets == "some" else targets
    config = LoraConfig(task_type="SEQ_CLS", target_modules=chosen, modules_to_save=ENCODERS[kind])
    theirs = randomise_peft(get_peft_model(copy.deepcopy(transformers_classifier(base)), config)).eval()
    theirs.save_pretrained(tmp_path / "peft")
    tokens = torch.randint(5, 60, (3, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    model, _ = load_bundle(tmp_path / "peft")
    with torch.no_grad():
        expected = logits_of(theirs, tokens, mask)
        assert largest_difference(model(tokens, mask), expected) < 1e-4 * max(1, float(expected.abs().max()))


def test_a_head_that_peft_did_not_save_is_missed(tmp_path: Path) -> None:
    """peft saves only `classifier` unless told; DeBERTa's pooler would be drawn again at each start."""
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import save_file

    base = make_checkpoint(tmp_path / "base", "deberta-v2")
    tensors = load_file(base / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(("pooler.", "classifier."))}
    save_file(kept, base / "model.safetensors", metadata={"format": "pt"})
    model = get_peft_model(transformers_classifier(base), LoraConfig(task_type="SEQ_CLS", target_modules=["query_proj"]))
    model.save_pretrained(tmp_path / "peft")
    with pytest.raises(LoralabError, match=r"pooler\.dense\.\w+' is neither in the adapter nor in .*that names 'pooler'"):
        load_bundle(tmp_path / "peft")


@pytest.mark.parametrize("change", [{"r": "many"}, {"r": None}, {"r": 0}, {"lora_alpha": None}, {"lora_dropout": "x"}, {"r": 5}])
def test_a_damaged_adapter_config_is_refused(checkpoints: dict[str, Path], tmp_path: Path, change: dict[str, Any]) -> None:
    saved_by_peft(tmp_path / "peft", checkpoints["bert"], "bert", ("query",), (0, 1))
    path = tmp_path / "peft" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(LoralabError):
        load_bundle(tmp_path / "peft")


def test_an_adapter_of_another_architecture_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    saved_by_peft(tmp_path / "peft", checkpoints["distilbert"], "distilbert", ("query",), (0, 1))
    with pytest.raises(LoralabError):
        load_bundle(tmp_path / "peft", str(checkpoints["bert"]))


def test_rslora_is_read_from_the_config(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """The same tensors under the other scale differ: the setting is not ignored."""
    saved_by_peft(tmp_path / "peft", checkpoints["bert"], "bert", ("query", "ffn_in"), (0, 1, 2), r=4)
    tokens, mask = padded_batch(checkpoints["bert"])
    path = tmp_path / "peft" / "adapter_config.json"

    def logits() -> Tensor:
        return logits_of(load_bundle(tmp_path / "peft")[0], tokens, mask)

    one = logits()
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_rslora": True}))
    other = logits()
    assert largest_difference(one, other) > 0.01
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_rslora": False, "lora_alpha": 6 * math.sqrt(4)}))
    assert largest_difference(logits(), other) < 1e-5
