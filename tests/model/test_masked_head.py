"""head=prompt: the logits equal those of Transformers' AutoModelForMaskedLM for the classes' words."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import bundle, randomise
from safetensors.torch import load_file, save_file
from tiny import CLASSES, make_checkpoint
from torch import Tensor

from loralab.config import LoraConfig, ModelConfig
from loralab.data.prompt import Prompt, set_prompt
from loralab.data.tokenize import encode, load_tokenizer
from loralab.data.types import Encoded, Examples
from loralab.errors import LoralabError
from loralab.model.build import PromptHead, build_model
from loralab.model.bundle import load_bundle
from loralab.model.checkpoints import resolve_base
from loralab.model.encoder import EncoderClassifier
from loralab.model.parameter_counts import count_from_shapes
from loralab.training.scoring import logits_of

KINDS = ("bert", "roberta", "xlm-roberta", "distilbert")
TEXTS = ["goal", "Shares of the bank said: [MASK], again and again", "", "telescope " * 30]
WORDS = (["border", "treaty"], ["goal"], ["xy"], ["the robot"])


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Checkpoints with such a head. Their encoders have several activations; XLM-R, with relu, has gelu in its head still."""
    folder = tmp_path_factory.mktemp("masked")
    other = {"bert": {"hidden_act": "gelu_new"}, "xlm-roberta": {"hidden_act": "relu"}, "distilbert": {"activation": "relu"}}
    return {kind: make_checkpoint(folder / kind, kind, masked=True, **other.get(kind, {})) for kind in KINDS}


def prompted(folder: Path, template: str = "This is of {}.") -> tuple[Prompt, Encoded]:
    """The prompt, and TEXTS in it."""
    tokenizer = load_tokenizer(folder, 24)
    said = [(word, label) for label, words in enumerate(WORDS) for word in words]
    labels = np.array([label for _, label in said])
    prompt = set_prompt(tokenizer, template, Examples([word for word, _ in said], labels, np.arange(len(said)), CLASSES))
    examples = Examples(TEXTS, None, np.arange(len(TEXTS)), CLASSES)
    return prompt, encode(examples, tokenizer=tokenizer, clean=(), pad_id=resolve_base(str(folder)).dims.pad_id)


def build(folder: Path, prompt: Prompt, *, tuning: str = "lora", lora: LoraConfig | None = None) -> Any:
    settings, head = ModelConfig(head="prompt"), PromptHead(prompt.place, prompt.words)
    lora = lora or LoraConfig(rank=2)
    base = resolve_base(str(folder))
    return build_model(base, 4, settings, tuning=tuning, lora=lora, init_seed=0, dropout_seed=1, prompt=head).eval()


def of_transformers(folder: Path, prompt: Prompt, encoded: Encoded) -> Tensor:
    """Each class's mean logit over its words, a word's over its tokens, at the mask of each text, one text at a time."""
    from transformers import AutoModelForMaskedLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForMaskedLM.from_pretrained(folder).eval()
    found = []
    for start, stop in zip(encoded.starts, encoded.starts[1:], strict=False):
        tokens = torch.from_numpy(encoded.tokens[start:stop].astype(np.int64))[None]
        with torch.no_grad():
            logits = model(tokens).logits[0, prompt.place]
        found.append(torch.stack([torch.stack([logits[word].mean() for word in words]).mean() for words in prompt.words]))
    return torch.stack(found)


@pytest.mark.parametrize("template", ["This is of {}.", "{}: {text}"])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_transformers_for_the_classes_words(masked: Mapping[str, Path], kind: str, template: str) -> None:
    prompt, encoded = prompted(masked[kind], template)
    assert (prompt.place < 0) == template.startswith("This")
    expected = of_transformers(masked[kind], prompt, encoded)
    assert expected.std(dim=0).min() > 0.01  # the texts differ, or an equal answer would say nothing
    found = logits_of(build(masked[kind], prompt), encoded)  # all texts in one padded pass
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_an_untied_decoder_is_used(masked: Mapping[str, Path], tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "untied", "roberta", masked=True, tie_word_embeddings=False)
    prompt, encoded = prompted(folder)
    expected = of_transformers(folder, prompt, encoded)
    np.testing.assert_allclose(logits_of(build(folder, prompt), encoded), expected.numpy(), atol=1e-5)
    tensors = load_file(folder / "model.safetensors")
    assert not torch.equal(tensors["lm_head.decoder.weight"], tensors["roberta.embeddings.word_embeddings.weight"])


@pytest.mark.parametrize("tuning", ["lora", "head", "full"])
@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_a_trained_prompt_is_counted_saved_and_loaded_whole(
    masked: Mapping[str, Path], tmp_path: Path, kind: str, tuning: str
) -> None:
    prompt, encoded = prompted(masked[kind])
    model: EncoderClassifier = build(masked[kind], prompt, tuning=tuning)
    formula = count_from_shapes(model.dims, 4, head="prompt", tuning=tuning, lora=LoraConfig(rank=2))
    assert model.parameter_counts() == formula
    assert formula.head == 32 * 33 + 2 * 32 + 4 * 33
    assert all(parameter.requires_grad for parameter in model.head.parameters())
    before = logits_of(model, encoded)
    expected = logits_of(randomise(model), encoded)
    assert np.abs(expected - before).max() > 0.1
    saved = bundle(tmp_path / "bundle", model, masked[kind], tuning=tuning, lora=LoraConfig(rank=2))
    loaded, manifest = load_bundle(saved)
    assert (manifest.head, manifest.pooling) == ("prompt", prompt.place)
    np.testing.assert_allclose(logits_of(loaded, encoded), expected, atol=1e-6)
    assert isinstance(loaded, EncoderClassifier)
    loaded.merge()
    np.testing.assert_allclose(logits_of(loaded, encoded), expected, atol=1e-5)


def test_an_encoder_without_a_masked_language_head_is_refused(masked: Mapping[str, Path], checkpoints: Mapping[str, Path]) -> None:
    prompt, _ = prompted(masked["bert"])
    for kind in ("bert", "electra"):
        with pytest.raises(LoralabError, match=r"no masked-language head(.|\n)*model.head=linear train.head_init=descriptions"):
            build(checkpoints[kind], prompt)
    with pytest.raises(LoralabError, match=r"model\.head=prompt needs the native model"):
        build(masked["bert"], prompt, lora=LoraConfig(variant="dora"))


def test_a_head_with_a_missing_tensor_is_refused(masked: Mapping[str, Path], tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "damaged", "roberta", masked=True)
    tensors = load_file(folder / "model.safetensors")
    save_file({name: t for name, t in tensors.items() if name != "lm_head.layer_norm.bias"}, folder / "model.safetensors")
    with pytest.raises(LoralabError, match=r"no tensor 'lm_head.layer_norm.bias'"):
        build(folder, prompted(folder)[0])
