"""Augmentation: the change of each technique, the number of new rows and their sources; only training rows are augmented."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from tiny import topics

from loralab import LoralabError, load_config
from loralab.data.augment import (
    TECHNIQUES,
    Rewrite,
    _delete,
    _gap,
    _match_case,
    augment,
    augmentation_remark,
    check_techniques,
    protected,
    show_techniques,
    word_rewrites,
)
from loralab.data.types import Examples
from loralab.diagnostics.diagnose import read_run_splits
from loralab.pipeline import run_training
from loralab.training.callbacks import Event, StepEnd

WORDS = TECHNIQUES[:-1]
KNOWN = {"oil": ["Petrol", "crude oil", "petroleum"], "prices": ["costs"], "great": ["big", "large"], "it": ["data processing"]}


def synonyms(word: str) -> list[str]:
    return KNOWN.get(word.lower(), [])


def rewrite(name: str, text: str, strength: float = 0.1, key: str = "0") -> str:
    return word_rewrites([name], strength, synonyms)[name]([text], key)[0]


def outcomes(name: str, text: str, strength: float = 0.1) -> Counter[str]:
    return Counter(rewrite(name, text, strength, str(key)) for key in range(300))


def examples(texts: Sequence[str], labels: Sequence[int], classes: int = 2) -> Examples:
    rows = np.arange(len(texts)) * 10 + 7  # row numbers differ from positions
    return Examples(list(texts), np.array(labels, dtype=np.int64), rows, tuple("abcdefgh"[:classes]))


def news(per_class: Sequence[int]) -> Examples:
    texts = [" ".join(f"w{c}x{i}y{k}" for k in range(6)) for c, n in enumerate(per_class) for i in range(n)]
    return examples(texts, [c for c, n in enumerate(per_class) for _ in range(n)], len(per_class))


# Each technique on one text


def test_synonyms_keep_case_and_punctuation() -> None:
    assert set(outcomes("synonym", '"Oil,"')) == {'"Petrol,"', '"Crude oil,"', '"Petroleum,"'}
    assert set(outcomes("synonym", "OIL!")) == {"PETROL!", "CRUDE OIL!", "PETROLEUM!"}
    # a name is not a synonym of a word in lower case
    assert set(outcomes("synonym", "oil")) == {"crude oil", "petroleum"}


def test_stop_words_numbers_and_joined_words_have_no_synonyms() -> None:
    text = "It 50 a oil's oil-rich o1l"
    assert set(outcomes("synonym", text, 1.0)) == set(outcomes("insertion", text, 1.0)) == {text}


def test_a_share_of_the_words_is_replaced_and_at_least_one() -> None:
    words = ["oil"] * 10 + ["the"] * 10
    for strength, count in ((0.01, 1), (0.1, 2), (0.17, 3), (0.5, 10), (1.0, 10)):
        new = rewrite("synonym", " ".join(words), strength).replace("crude oil", "crude").split()
        assert sum(a != b for a, b in zip(words, new, strict=True)) == count
        assert new[10:] == words[10:]


def test_insertion_adds_synonyms_anywhere_and_keeps_all_words_in_order() -> None:
    counts = outcomes("insertion", "prices of 7 fall")
    assert set(counts) == {"costs prices of 7 fall", "prices costs of 7 fall", "prices of costs 7 fall", "prices of 7 costs fall",
                          "prices of 7 fall costs"}  # fmt: skip
    assert min(counts.values()) > 30  # 60 are expected for each
    assert len(rewrite("insertion", "prices " * 10, 0.3).split()) == 13


def test_deletion_probability_with_at_least_one_word_deleted_and_kept() -> None:
    text = " ".join(map(str, range(100)))
    left = [len(new.split()) for new in outcomes("deletion", text, 0.3).elements()]
    assert abs(np.mean(left) - 70) < 3 * np.sqrt(100 * 0.3 * 0.7 / 300)
    assert set(outcomes("deletion", "a b c", 0.001)) == {"b c", "a c", "a b"}
    assert set(outcomes("deletion", "a b c", 1.0)) == {"a", "b", "c"}


def test_swap_keeps_the_words_and_exchanges_two() -> None:
    assert set(outcomes("swap", "a b c")) == {"b a c", "c b a", "a c b"}
    words = [str(i) for i in range(40)]
    for new in outcomes("swap", " ".join(words)):
        assert sorted(new.split()) == sorted(words)
        assert 2 <= sum(a != b for a, b in zip(words, new.split(), strict=True)) <= 8
    assert set(outcomes("swap", "x x y")) == {"y x x", "x y x"}  # never two equal words


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize("text", ["", " \n ", "—", "x", "😀", "İ", "\ud83d", "x " * 3])
def test_texts_without_changeable_words_keep_their_words(name: str, text: str) -> None:
    words = "x x" if (name, text) == ("deletion", "x x x ") else " ".join(text.split())
    assert rewrite(name, text, 0.3) in (words, "x")
    assert bool(rewrite(name, text, 0.3)) == bool(words)


def test_other_scripts() -> None:
    known = {"цены": ["стоимость"]}
    change = word_rewrites(["synonym"], 0.5, lambda word: known.get(word.lower(), []))["synonym"]
    assert change(["«Цены»", "«цены»,"], "0") == ["«Стоимость»", "«стоимость»,"]
    assert set(rewrite("swap", "Цены 上涨 😀").split()) == {"Цены", "上涨", "😀"}


def test_a_change_does_not_depend_on_the_other_texts() -> None:
    texts = [text for text, _ in topics(5)]
    for name, change in word_rewrites(WORDS, 0.3, synonyms).items():
        together = change(texts, "7/x")
        assert together == [change([text], "7/x")[0] for text in texts]
        assert change(texts, "8/x") != together or name in ("synonym", "insertion")


# Sources and number of new rows


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 0.75, 1.0, 2.5])
def test_ratio_class_proportions_and_technique_shares(ratio: float) -> None:
    train = news([40, 24, 16])
    new, made = augment(train, word_rewrites(["swap", "deletion"], 0.1, None), ratio=ratio, seed=1)
    assert len(new) == 80 * ratio
    assert np.bincount(new.require_labels(), minlength=3).tolist() == [40 * ratio, 24 * ratio, 16 * ratio]
    assert abs(made["swap"] - made["deletion"]) <= 3 * np.ceil(ratio)  # one per class and cycle
    assert set(Counter(new.rows.tolist()).values()) <= {int(np.floor(ratio)), int(np.ceil(ratio))}
    at = {row: i for i, row in enumerate(train.rows.tolist())}
    for text, row, label in zip(new.texts, new.rows.tolist(), new.require_labels(), strict=True):
        source = train.texts[at[row]]
        assert set(text.split()) <= set(source.split()), "not made of the row whose number it bears"
        assert text != source
        assert label == train.require_labels()[at[row]]
    assert len(set(new.texts)) == len(new)


def test_new_rows_depend_on_the_seed() -> None:
    train = news([30, 30])

    def rows(names: Sequence[str], ratio: float, seed: int) -> set[tuple[str, int]]:
        rewrites = word_rewrites(names, 0.2, None)
        new, _ = augment(train, {name: rewrites[name] for name in names}, ratio=ratio, seed=seed)
        return set(zip(new.texts, new.rows.tolist(), strict=True))

    some = rows(["swap", "deletion"], 0.5, 1)
    assert some == rows(["deletion", "swap"], 0.5, 1)
    assert some != rows(["swap", "deletion"], 0.5, 2)
    assert some < rows(["swap", "deletion"], 0.75, 1) < rows(["swap", "deletion"], 1.5, 1)


def test_texts_are_cleaned_before_augmentation() -> None:
    train = examples(["oil lt;b gt;up lt;/b gt;", "profit &amp; loss"], [0, 1])
    new, _ = augment(train, word_rewrites(["swap"], 0.1, None), ratio=1, seed=0, clean=("escapes", "html", "whitespace"))
    assert {" ".join(sorted(text.split())) for text in new.texts} == {"oil up", "& loss profit"}


def scripted(answers: Mapping[str, str], calls: list[list[str]]) -> Rewrite:
    def change(texts: Sequence[str], key: str) -> list[str]:
        calls.append(list(texts))
        return [answers.get(text, text) for text in texts]

    return change


def test_if_a_technique_changes_nothing_the_next_is_used_then_another_row() -> None:
    train = examples(["a", "b", "d", "e"], [0, 0, 1, 1])
    first, second = scripted({"a": "A", "d": " d "}, []), scripted({"d": "D"}, [])
    new, made = augment(train, {"swap": first, "synonym": second}, ratio=0.5, seed=0)
    # one row per class is requested: `swap` changes only "a", `synonym` only "d", and nothing changes "b" and "e"
    assert (list(new.texts), made) == (["A", "D"], {"swap": 1, "synonym": 1})
    train = examples(list("abcdefgh"), [0] * 8, 1)
    rewrites = {"swap": scripted({t: t * 2 for t in "abcdef"}, []), "synonym": scripted({t: t * 3 for t in "gh"}, [])}
    new, made = augment(train, rewrites, ratio=1, seed=0)  # every row, by the only technique that changes it
    assert list(new.texts) == ["aa", "bb", "cc", "dd", "ee", "ff", "ggg", "hhh"]
    assert made == {"swap": 6, "synonym": 2}


def test_rows_that_cannot_be_made_are_reported() -> None:
    train = examples(["a", "", "b c", "d"], [0, 0, 1, 1])
    new, made = augment(train, word_rewrites(["swap"], 0.1, None), ratio=3, seed=0)
    assert list(new.texts) == ["c b"]  # once, though three were requested
    assert new.rows.tolist() == [27]
    assert augmentation_remark(made, 12) == (
        "1 augmented rows added to the training rows: 1 swap; 11 more were requested, but no technique could make them: "
        "the other texts have too few words that a technique may change"
    )
    assert augmentation_remark(Counter(), 2).startswith("0 augmented rows added to the training rows; 2 more")


def test_a_technique_gets_all_its_rows_in_one_call() -> None:
    train = news([50, 50])
    calls: list[list[str]] = []
    new, _ = augment(train, {"back_translation": scripted({t: t.upper() for t in train.texts}, calls)}, ratio=0.5, seed=0)
    assert len(calls) == 1
    assert sorted(t.upper() for t in calls[0]) == sorted(new.texts)


def test_unknown_and_repeated_techniques_are_refused() -> None:
    with pytest.raises(LoralabError, match=r"'synonims' is not a technique; did you mean 'synonym'\?.*back_translation"):
        check_techniques(["swap", "synonims"])
    with pytest.raises(LoralabError, match="'swap' twice"):
        check_techniques(["swap", "deletion", "swap"])


def test_shown_techniques_and_their_seed() -> None:
    rewrites = word_rewrites(["deletion", "swap"], 0.2, None)
    text = " ".join(map(str, range(20)))
    shown = show_techniques(text, rewrites, 1)
    assert [name for name, _ in shown] == ["before", "deletion", "swap"]
    assert shown[0][1] == text
    assert shown == show_techniques(text, rewrites, 1) != show_techniques(text, rewrites, 2)


# A whole run


SETTINGS = ("train.epochs=2", "train.batch_size=8", "train.threads=1", "data.max_length=32", "data.augment=swap,deletion")


def test_a_run_trains_on_the_new_rows_and_holds_out_the_same(tiny: Path, topics_csv: Path, tmp_path: Path) -> None:
    config = load_config("quickstart", [f"model.base={tiny}", f"data.source={topics_csv}", *SETTINGS, "train.epochs=1"])
    announced: list[tuple[str, ...]] = []
    more = run_training(config, name="more", folder=tmp_path, announce=lambda plan: announced.append(plan.remarks))
    none = run_training(config.override("data.augment_ratio=0"), name="none", folder=tmp_path)
    facts = [json.loads((tmp_path / name / "environment.json").read_text())["rows"] for name in ("more", "none")]
    added = round(0.25 * facts[1]["train"]["count"])
    assert facts[0].pop("augmented")["count"] == added
    assert facts[0] == facts[1]  # the source rows, training rows included, are equal
    assert more.steps > none.steps
    assert more.scores != none.scores
    assert any(line.startswith(f"{added} augmented rows added") for line in announced[0])
    assert len(read_run_splits(tmp_path / "more").train) == facts[1]["train"]["count"]  # diagnose reads the same rows


def test_resumed_run_equals_uninterrupted_run(
    tiny: Path, topics_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config("quickstart", [f"model.base={tiny}", f"data.source={topics_csv}", *SETTINGS])
    whole = run_training(config, name="whole", folder=tmp_path)

    class TrialPruned(Exception):
        pass

    def stop(event: Event) -> None:
        if isinstance(event, StepEnd) and event.epoch > 1:
            raise TrialPruned

    with pytest.raises(TrialPruned):
        run_training(config, name="cut", folder=tmp_path, listeners=[stop])
    monkeypatch.setattr("loralab.data.augment._swap", lambda words, count, source: words[::-1])  # like another version of WordNet
    with pytest.raises(LoralabError, match="rows was"):
        run_training(config, name="cut", folder=tmp_path, resume=True)
    monkeypatch.undo()
    resumed = run_training(config, name="cut", folder=tmp_path, resume=True)
    assert (resumed.scores, resumed.best_step) == (whole.scores, whole.best_step)
    weights = [(tmp_path / name / "model" / "adapter_model.safetensors").read_bytes() for name in ("cut", "whole")]
    assert weights[0] == weights[1]


def test_global_random_state_is_unchanged() -> None:
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()
    augment(news([5, 5]), word_rewrites(WORDS, 0.2, synonyms), ratio=1, seed=0)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


@pytest.mark.parametrize(
    ("text", "fixed"),
    [
        ("call [ORDER NO] now", [1, 2]),
        ("call <ORDER NO> now {a b c d} then", [1, 2, 4, 5, 6, 7]),
        ("[a b c d e] x", [0, 1, 2, 3, 4]),
        ("[a b c d e f] x", []),
        ("[a b [c d] x", [2, 3]),
        ("[a-<b [x c> end", [0, 1, 2]),
        ("list[a b] and [ a b]", []),
        ("[a]b c]", [0]),
        ("never say no, isn't it", [0, 2, 3]),
        ("@user #tag %s $NAME :smile: __X__ www.x.org a@b.org x.com plain", [*range(9)]),
        ("(Not) good. non-stop don't", [0, 2, 3]),
    ],
)
def test_negations_and_placeholders_are_protected(text: str, fixed: list[int]) -> None:
    assert sorted(protected(text.split())) == fixed


@pytest.mark.parametrize(
    ("text", "position", "gap"),
    [
        ("a [b c d] e", 0, 0),
        ("a [b c d] e", 1, 1),
        ("a [b c d] e", 2, 4),
        ("a [b c d] e", 3, 4),
        ("a [b c d]", 2, 4),
        ("a b", 2, 2),
        ("[b c] no x", 1, 3),
    ],
)
def test_words_are_inserted_beside_placeholders(text: str, position: int, gap: int) -> None:
    assert _gap(text.split(), position) == gap


def test_deletion_keeps_protected_words_and_at_least_one() -> None:
    stream = random.Random(0)
    for _ in range(50):
        kept = _delete(["never", "a", "b", "c"], 0.5, stream)
        assert kept[0] == "never"
        assert 1 <= len(kept) < 4
        assert _delete(["no", "not"], 0.0, stream) == ["no", "not"]
        assert len(_delete(["a", "b"], 0.0, stream)) == 1
        assert len(_delete(["a", "b"], 1.0, stream)) == 1
        assert _delete(["a"], 1.0, stream) == ["a"]


def test_cases_are_matched() -> None:
    assert [_match_case(word, "new York") for word in ("OIL", "Oil", "oil", "A")] == [
        "NEW YORK",
        "New York",
        "new York",
        "NEW YORK",
    ]


def test_empty_results_are_no_rows() -> None:
    rows, made = augment(examples(["a b", "c d"], [0, 1]), {"deletion": lambda texts, key: [" " for _ in texts]}, ratio=1.0, seed=0)
    assert (len(rows), dict(made)) == (0, {})
