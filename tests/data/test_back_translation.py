"""Back-translation with tiny random Marian checkpoints: order, equality with Transformers' own translation, seeds, errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import _tokenizer, _vocabulary, topics

from loralab import LoralabError, load_config
from loralab.data import back_translation
from loralab.data.augment import augment
from loralab.data.back_translation import load_back_translation
from loralab.training.setup import build_run

TEXTS = ["goal league", "", "profit bank merger revenue of the week after border treaty", "chip", "goal", "  ", "a chip"]


def make_translator(folder: Path, seed: int = 0) -> Path:
    """A random Marian checkpoint, width 16, one layer each way, with the tiny encoders' tokenizer."""
    from transformers import PreTrainedTokenizerFast

    vocabulary = _vocabulary(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(vocabulary), pad_token="[PAD]", eos_token="[SEP]", unk_token="[UNK]", bos_token="[CLS]"
    )
    tokenizer.save_pretrained(folder)
    _save_model(folder, len(vocabulary), vocabulary.index("[PAD]"), vocabulary.index("[SEP]"), seed)
    return folder


def _save_model(folder: Path, size: int, pad: int, end: int, seed: int) -> None:
    from transformers import MarianConfig, MarianMTModel

    config = MarianConfig(
        vocab_size=size, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=64, pad_token_id=pad, eos_token_id=end,
        decoder_start_token_id=pad, forced_eos_token_id=None, num_beams=1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any = MarianMTModel(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.normal_(std=1.0 if "encoder_attn" in name or "shared" in name else 0.3)
                if "norm.weight" in name:
                    parameter.abs_().add_(1.0)
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("marian")
    return str(make_translator(folder / "there", 1)), str(make_translator(folder / "back", 2))


def greedy(name: str, text: str) -> str:
    """Return Transformers' greedy translation of one text, at most 16 tokens."""
    from transformers import AutoTokenizer, MarianMTModel

    tokenizer, model = AutoTokenizer.from_pretrained(name), MarianMTModel.from_pretrained(name)
    inputs = tokenizer(text, return_tensors="pt")
    tokens = model.generate(
        input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, do_sample=False, num_beams=1, max_new_tokens=16
    )
    return str(tokenizer.batch_decode(tokens, skip_special_tokens=True)[0]).strip()


def test_near_temperature_zero_translations_equal_greedy_decoding(pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(back_translation, "TEMPERATURE", 1e-5)
    monkeypatch.setattr(back_translation, "TOKENS_PER_BATCH", 12)  # several batches, of one text and more
    monkeypatch.setattr(back_translation, "GROWTH", 0)  # otherwise the longest text of a batch sets the limit
    forward, backward = (back_translation._load(name) for name in pair)
    translations = forward.translate(TEXTS, 0)
    assert translations == [greedy(pair[0], text) if text.strip() else "" for text in TEXTS]
    assert len({*translations}) > 3
    assert load_back_translation(*pair)(TEXTS, "0") == backward.translate(translations, 0)


def test_sampling_depends_on_the_key_and_not_on_the_global_state(pair: tuple[str, str]) -> None:
    change = load_back_translation(*pair)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = change(TEXTS, "1/a")
    assert torch.equal(torch.get_rng_state(), state)
    assert first == change(TEXTS, "1/a") == load_back_translation(*pair)(TEXTS, "1/a")
    assert first != change(TEXTS, "1/b")
    assert first != load_back_translation(*pair[::-1])(TEXTS, "1/a")


def test_translations_end(pair: tuple[str, str]) -> None:
    translator = back_translation._load(pair[0])
    (translations,) = translator.translate(["goal " * 500], 0)  # truncated to 64 tokens, the positions of this model
    assert len(translations.split()) <= 64
    (translations,) = translator.translate(["goal"], 0)  # three tokens, special tokens included
    assert len(translations.split()) <= 2 * 3 + 16


def test_a_run_with_back_translation(pair: tuple[str, str], tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    settings = [f"model.base={tiny}", f"data.source={topics_csv}", "data.max_train_samples=20", "data.augment_ratio=1"]
    config = load_config("quickstart", [*settings, f"data.back_translation={','.join(pair)}", "data.augment=back_translation,swap"])
    components = build_run(config, tmp_path / "run")
    splits = components.plan.splits
    assert splits.augmented is not None
    assert (len(splits.train), len(splits.augmented), len(components.encoded["train"])) == (20, 20, 40)
    assert components.plan.remarks[0].endswith(" swap, 10 back_translation")
    again = build_run(config, tmp_path / "run").plan.splits
    assert again.fingerprints() == splits.fingerprints()
    change = {"back_translation": load_back_translation(*pair)}
    alone, made = augment(splits.train, change, ratio=0.5, seed=1)
    assert made == {"back_translation": 10}
    assert len({*alone.texts, *splits.train.texts}) == 30


def test_the_default_pair_is_used_and_named_if_none_is_given(
    pair: tuple[str, str], tiny: Path, topics_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loralab.training.setup.DEFAULT_PAIR", pair)
    settings = [f"model.base={tiny}", f"data.source={topics_csv}", "data.max_train_samples=20", "data.augment=back_translation"]
    config = load_config("quickstart", settings)
    plan = build_run(config, tmp_path / "run").plan
    assert plan.remarks[1] == f"data.back_translation is not set: {pair[0]} and {pair[1]} were used"
    explicit = build_run(config.override(f"data.back_translation={','.join(pair)}"), tmp_path / "run").plan
    assert explicit.splits.fingerprints() == plan.splits.fingerprints()
    assert not any("data.back_translation" in remark for remark in explicit.remarks)


@pytest.mark.parametrize("wrong", ["", "encoder", "damaged"])
def test_a_checkpoint_that_is_no_translator_is_named(wrong: str, pair: tuple[str, str], tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    if wrong == "encoder":
        folder = tiny
    elif wrong == "damaged":
        make_translator(folder)
        (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(
        LoralabError, match=r"data.back_translation: cannot load '.*' as a translation model(?s:.*)loralab\[augment\]"
    ):
        load_back_translation(pair[0], str(folder))


def test_hub_layout_with_two_sentencepiece_models(tmp_path: Path) -> None:
    """source.spm, target.spm and vocab.json, as in the opus-mt checkpoints. Decoding the tokens gives the text."""
    spm = pytest.importorskip("sentencepiece")
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(text for text, _ in topics(50)), encoding="utf-8")
    spm.SentencePieceTrainer.train(
        input=str(lines), model_prefix=str(tmp_path / "source"), vocab_size=120, minloglevel=2, pad_id=-1
    )
    folder = tmp_path / "opus"
    folder.mkdir()
    for name in ("source", "target"):
        (folder / f"{name}.spm").write_bytes((tmp_path / "source.model").read_bytes())
    pieces = spm.SentencePieceProcessor(model_file=str(folder / "source.spm"))
    words = ["</s>", "<unk>", *(pieces.id_to_piece(i) for i in range(3, pieces.get_piece_size())), "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"source_lang": "en", "target_lang": "fr"}), encoding="utf-8")
    _save_model(folder, len(words), len(words) - 1, 0, 1)
    translator = back_translation._load(str(folder))
    text = topics(50)[0][0]
    assert translator.tokenizer.decode(translator.tokenizer(text).input_ids, skip_special_tokens=True) == text
    assert translator.translate([text, "", text], 0) == translator.translate([text, "", text], 0)
    change = load_back_translation(str(folder), str(folder))
    assert all(change([text], key) != [text] for key in "abc")
