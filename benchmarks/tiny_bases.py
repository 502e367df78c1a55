"""Tiny random checkpoints of ten architectures, each with a tokenizer of its own class and kind, trained on a few texts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

WIDTH, LAYERS, HEADS, POSITIONS = 48, 2, 4, 256
BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def wordpiece(texts: Iterable[str], special: list[str], *, lowercase: bool) -> dict[str, int]:
    """The vocabulary of a WordPiece tokenizer."""
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer(lowercase=lowercase, unk_token="[UNK]")
    tokenizer.train_from_iterator(texts, vocab_size=900, min_frequency=1, special_tokens=special, show_progress=False)
    return dict(tokenizer.get_vocab())


def byte_pairs(texts: Iterable[str], special: list[str]) -> Any:
    """A byte-level BPE tokenizer of the `tokenizers` library."""
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts, vocab_size=700, min_frequency=1, special_tokens=special, show_progress=False)
    return tokenizer


def unigram(texts: Iterable[str], special: list[str], unknown: str) -> list[tuple[str, float]]:
    """The pieces of a SentencePiece-like Unigram tokenizer, with their scores."""
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=600, special_tokens=special, unk_token=unknown, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return [(piece, float(score)) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"]]


def _bert(name: str, lowercase: bool, special: list[str] = BERT_SPECIAL) -> Callable[[list[str]], Any]:
    def make(texts: list[str]) -> Any:
        import transformers

        words = wordpiece(texts, special, lowercase=lowercase)
        return getattr(transformers, name)(vocab=words, do_lower_case=lowercase, model_max_length=POSITIONS)

    return make


def _roberta(texts: list[str]) -> Any:
    import json

    from transformers import RobertaTokenizer

    model = json.loads(byte_pairs(texts, ROBERTA_SPECIAL).to_str())["model"]
    merges = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]
    return RobertaTokenizer(vocab=model["vocab"], merges=merges, model_max_length=POSITIONS)


def _unigram(name: str, special: list[str], unknown: str) -> Callable[[list[str]], Any]:
    def make(texts: list[str]) -> Any:
        import transformers

        return getattr(transformers, name)(vocab=unigram(texts, special, unknown), model_max_length=POSITIONS)

    return make


def _modernbert(texts: list[str]) -> Any:
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = byte_pairs(texts, BERT_SPECIAL)
    pairs = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=pairs)
    roles = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), BERT_SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, model_max_length=POSITIONS, **roles)


ALBERT_SPECIAL = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
MPNET_SPECIAL = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]
TOKENIZERS: Mapping[str, tuple[str, Callable[[list[str]], Any]]] = {
    "bert (cased)": ("bert", _bert("BertTokenizer", lowercase=False)),
    "distilbert": ("distilbert", _bert("DistilBertTokenizer", lowercase=True)),
    "electra": ("electra", _bert("ElectraTokenizer", lowercase=True)),
    "roberta": ("roberta", _roberta),
    "xlm-roberta": ("xlm-roberta", _unigram("XLMRobertaTokenizer", ROBERTA_SPECIAL, "<unk>")),
    "albert": ("albert", _unigram("AlbertTokenizer", ALBERT_SPECIAL, "<unk>")),
    "deberta-v3": ("deberta-v2", _unigram("DebertaV2Tokenizer", BERT_SPECIAL, "[UNK]")),
    "modernbert": ("modernbert", _modernbert),
    "mpnet": ("mpnet", _bert("MPNetTokenizer", lowercase=True, special=MPNET_SPECIAL)),
}
"""The model type and tokenizer of each base. `minilm`, the tenth, is installed."""


def make_base(name: str, folder: Path, texts: list[str]) -> Path:
    """Write a random checkpoint without a classification head, and its tokenizer, as Transformers saves them."""
    import torch
    from transformers import AutoConfig, AutoModel

    model_type, make = TOKENIZERS[name]
    tokenizer = make(texts)
    ids = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("pad", "bos", "eos", "cls", "sep")}
    sizes: dict[str, Any] = {key: value for key, value in ids.items() if value is not None} | {"vocab_size": len(tokenizer)}
    if model_type == "distilbert":
        sizes |= {"dim": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": 2 * WIDTH}
    else:
        sizes |= {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": 2 * WIDTH}
    sizes["max_position_embeddings"] = POSITIONS + (2 if model_type in ("roberta", "xlm-roberta", "mpnet") else 0)
    if model_type == "deberta-v2":
        sizes |= {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 64, "share_att_key": True}
        sizes |= {"norm_rel_ebd": "layer_norm", "position_biased_input": False, "type_vocab_size": 0}
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModel.from_config(AutoConfig.for_model(model_type, **sizes))
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            parameter.add_(0.3 * torch.randn_like(parameter) if "norm" not in parameter_name.lower() else 0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
