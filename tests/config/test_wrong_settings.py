"""What wrong settings, values and files are refused, and what the message says to write."""

from __future__ import annotations

import datetime
import re
import subprocess
import sys
from pathlib import Path

import pytest
from setting_cases import OTHER, refused, write

from loralab.config import Config, load_config
from loralab.config.hints import COMPUTED, other_names, similar_settings, similar_value
from loralab.config.loading import list_recipes, setting_names
from loralab.config.schema import DELIMITER_NAMES, DataConfig
from loralab.config.yaml_core import MAX_YAML_BYTES

RECIPES = [recipe.name for recipe in list_recipes()]
NAMES = other_names()


def test_an_override_without_an_equals_sign_is_refused() -> None:
    assert "write key=value" in refused("quickstart", ["lora.rank"])


def section_of(key: str, value: str) -> str:
    """Return a setting as YAML, below its section if it has one."""
    section, dot, name = key.rpartition(".")
    return f"{section}: {{{name}: {value}}}" if dot else f"{key}: {value}"


@pytest.mark.parametrize(
    ("assignment", "nearest"),
    [
        ("lora.rnak=4", "lora.rank"),
        ("max_lenght=64", "data.max_length"),
        ("model.bsae=minilm", "model.base"),
        ("train.warmup_fraction=0.1", "train.warmup"),
        ("use_gradient_checkpointing=true", "train.gradient_checkpointing"),
        ("decay=0.1", "train.weight_decay"),
        ("scheduler=cosine", "train.schedule"),
    ],
)
def test_an_unknown_setting_suggests_the_nearest(assignment: str, nearest: str, tmp_path: Path) -> None:
    key, _, value = assignment.partition("=")
    hint = f"unknown setting {key!r}; did you mean {nearest!r}?"
    assert hint in refused("quickstart", [assignment])
    assert hint in refused(write(tmp_path / "a.yaml", section_of(key, value)))
    load_config("quickstart", [f"{nearest}={value}"])


@pytest.mark.parametrize(
    ("assignment", "fix"),
    [
        ("rank=4", "lora.rank=4"),
        ("train.rank=4", "lora.rank=4"),
        ("learning_rate=1e-3", "train.learning_rate=1e-3"),
        ("lora.learning_rate=1e-3", "train.learning_rate=1e-3"),
        ("batch_size=4", "train.batch_size=4"),
        ("max_length=256", "data.max_length=256"),
        ("weight_decay=0.1", "train.weight_decay=0.1"),
        ("max_grad_norm=2", "train.max_grad_norm=2"),
        ("optimizer=sgd", "train.optimizer=sgd"),
        ("optimizer=adamw_torch", "train.optimizer=adamw"),
        ("precision=16", "train.precision=fp16"),
        ("Seed=4", "seed=4"),
        ("trian.epochs=2", "train.epochs=2"),
    ],
)
def test_a_setting_with_a_missing_or_wrong_section_is_completed(assignment: str, fix: str, tmp_path: Path) -> None:
    message = refused("quickstart", [assignment])
    assert message.endswith(f"unknown setting {assignment.partition('=')[0]!r}: write {fix}")
    load_config("quickstart", [fix])


def test_a_wrong_section_in_a_file_is_corrected(tmp_path: Path) -> None:
    assert "unknown setting 'train.rank': write lora.rank: 4" in refused(write(tmp_path / "a.yaml", "train: {rank: 4}"))


@pytest.mark.parametrize("key", ["train.stop", "model.model", "lora.scaling", "train.zzz"])
def test_sharing_only_the_section_is_not_similar(key: str) -> None:
    section = key.partition(".")[0]
    assert f"unknown setting {key!r}: `loralab settings {section}.` lists the settings of {section}" in refused(
        "quickstart", [f"{key}=1"]
    )


@pytest.mark.parametrize(
    ("assignment", "ours"),
    [
        ("train.optimizer=adamW", "adamw"),
        ("train.optimizer=adamw_torch", "adamw"),
        ("train.optimizer=adamw_bnb_8bit", "adamw_8bit"),
        ("train.precision=16", "fp16"),
        ("train.precision=bfloat16", "bf16"),
        ("train.device=gpu", "cuda"),
        ("train.schedule=constant_with_warmup", "constant"),
        ("tuning=qlora", "lora"),
        ("tuning=LoRA", "lora"),
        ("model.quantize=int8", "8bit"),
    ],
)
def test_a_value_of_another_library_suggests_ours(assignment: str, ours: str) -> None:
    assert f"; did you mean {ours!r}?" in refused("quickstart", [assignment])
    load_config("quickstart", [f"{assignment.partition('=')[0]}={ours}"])


def test_a_whole_number_written_as_a_decimal_is_suggested() -> None:
    assert "train.max_steps=1000.0: must be a whole number > 0" in refused("quickstart", ["train.max_steps=1e3"])
    assert refused("quickstart", ["train.max_steps=1e3"]).endswith("; did you mean 1000?")
    assert "did you mean" not in refused("quickstart", ["train.max_steps=8.5"])


@pytest.mark.parametrize("assignment", ["train.learning_rate=1_000", "data.test=-0.5", "data.validation=-1"])
def test_odd_numbers_are_refused(assignment: str) -> None:
    assert f"{assignment.partition('=')[0]}=" in refused("quickstart", [assignment])


def test_every_unknown_setting_of_a_file_is_named_at_once(tmp_path: Path) -> None:
    message = refused(write(tmp_path / "a.yaml", "lora: {rnak: 4, alhpa: 2}\nsede: 1\n"))
    assert all(key in message for key in ("'lora.rnak'", "'lora.alhpa'", "'sede'", "'lora.rank'", "'lora.alpha'", "'seed'"))


@pytest.mark.parametrize("assignment", ["zzzzzz=1", "=3", "lora=8", "dropout=0.1", "train.lr=1", "rank_=4", "a.b.c=1"])
def test_a_message_names_three_settings_at_most_and_the_command_that_lists_them(assignment: str) -> None:
    message = refused("quickstart", [assignment])
    named = [name for name in setting_names() if re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", message)]
    assert len(named) <= 3
    assert named or "`loralab settings`" in message


def test_two_settings_with_one_last_word_are_both_named() -> None:
    assert "did you mean 'model.dropout' or 'lora.dropout'?" in refused("quickstart", ["dropout=0.1"])


SAMPLE_VALUES = {
    "target_modules": ["q_proj,v_proj", "all-linear", "['query', 'value']", "query_key_value_dense,lin1"],
    "optim": ["adamw_torch", "adamw_bnb_8bit", "paged_adamw_8bit", "adafactor", "adamw_torch_fused", "lomo"],
    **{key: ["eval_loss", "f1", "eval_accuracy", "loss"] for key in ("metric_for_best_model", "eval_metric", "metric")},
    "lora_target_modules": ["q_lin,v_lin"],
    "gradient_accumulation_steps": ["4", "x"],
    "per_device_train_batch_size": ["8"],
    "lr_scheduler_type": ["cosine", "linear", "constant_with_warmup", "polynomial"],
    "mixed_precision": ["fp16", "bf16", "no"],
    "init_lora_weights": ["pissa", "gaussian"],
    "evaluation_strategy": ["epoch", "steps", "no"],
}


@pytest.mark.parametrize("name", sorted({*NAMES.renamed, *NAMES.converted, *COMPUTED, *NAMES.left_out}))
@pytest.mark.parametrize("prefix", ["", "train."])
def test_the_fix_for_another_librarys_setting_works_when_pasted(name: str, prefix: str, tmp_path: Path) -> None:
    values = SAMPLE_VALUES.get(name) or [{**OTHER, "name": "mine"}.get(NAMES.renamed.get(name, ""), "true")]
    for value in values:
        message = refused("quickstart", [f"{prefix}{name}={value}"])
        assert message.startswith(f"unknown setting '{prefix}{name}'")
        if name in NAMES.left_out:
            assert "leave it out; " in message
            continue
        fix = re.search(r": write ([a-z_.]+=.+?)(?: for | \(|$)", message)
        assert fix, message
        config = load_config("quickstart", [fix[1]])
        assert config.override(fix[1]) == config
        if not prefix:  # the same in a file, as YAML
            in_file = refused(write(tmp_path / "mine.yaml", f"{name}: {value}\n"))
            line = re.search(r": write ([a-z_.]+: .+?)(?: for | \(|$)", in_file)
            assert line, in_file
            from_file = load_config(write(tmp_path / "fixed.yaml", line[1] + "\n"))
            assert from_file == Config().override(fix[1])


def test_several_unknown_settings_are_named_at_once() -> None:
    message = refused("quickstart", ["r=4", "lora_alpha=8", "fp16=true"])
    assert all(fix in message for fix in ("lora.rank=4", "lora.alpha=8", "train.precision=fp16"))


def test_a_repeated_key_is_refused(tmp_path: Path) -> None:
    assert "'rank' occurs more than once" in refused(write(tmp_path / "a.yaml", "lora:\n  rank: 4\n  rank: 8\n"))


def test_a_misspelt_section_is_named(tmp_path: Path) -> None:
    assert "did you mean the section 'train'?" in refused(write(tmp_path / "a.yaml", "trian: {epochs: 3}\n"))


@pytest.mark.parametrize("key", ["lora", "train", "data"])
def test_a_whole_section_is_no_setting(key: str) -> None:
    assert f"unknown setting {key!r}" in refused("quickstart", [f"{key}=3"])


@pytest.mark.parametrize(
    "assignment",
    [
        "lora.rank=0",
        "lora.rank=-1",
        "lora.rank=abc",
        "lora.rank=8.5",
        "lora.rank=true",
        "lora.rank=",
        "lora.alpha=0",
        "lora.dropout=1",
        "lora.dropout=-0.1",
        "lora.variant=dorra",
        "lora.targets=",
        "lora.targets=[]",
        "train.head_learning_rate=0",
        "train.optimizer=adamww",
        "train.device=gpu",
        "train.max_grad_norm=0",
        "train.gradient_checkpointing=yes",
        "seed=-1",
        "seed=1.5",
        "seed=yes",
        "tuning=none",
        "model.pooling=max",
        "model.head=big",
        "model.dropout=1.0",
        "data.max_length=4",
        "data.max_train_samples=0",
        "train.learning_rate=0",
        "train.learning_rate=-1e-3",
        "train.learning_rate=fast",
        "train.learning_rate=nan",
        "train.epochs=-1",
        "train.epochs=true",
        "train.max_steps=0",
        "train.batch_size=0",
        "train.schedule=step",
        "train.label_smoothing=1",
        "train.focal_gamma=-1",
        "train.eval_steps=0",
        "train.patience=0",
        "train.min_delta=-0.1",
        "train.precision=fp8",
        "train.class_weights=equal",
        "train.class_weights=a,b",
        "train.class_weights={World: heavy}",
        "train.class_weights=2",
        "train.monitor=",
    ],
)
def test_a_value_out_of_range_or_of_another_type_is_named(assignment: str) -> None:
    name = assignment.partition("=")[0]
    message = refused("quickstart", [assignment])
    assert f"{name}=" in message
    assert "must be " in message
    assert "recipe quickstart" in message
    assert len(message) < 1000


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("lora.rank=four", "lora.rank='four': must be a whole number > 0 (rank of each adapter (r))"),
        ("lora.rank=", "lora.rank=none: must be a whole number > 0"),
        ("lora.dropout=1", "lora.dropout=1: must be a number ≥ 0, < 1"),
        ("data.max_length=4", "data.max_length=4: must be a whole number ≥ 8"),
        ("seed=true", "seed=True: must be a whole number ≥ 0"),
        ("train.schedule=cosin", "train.schedule='cosin': must be one of cosine, linear, constant; did you mean 'cosine'?"),
        ("lora.variant=dorra", "adalora, vera, ia3; did you mean 'dora'?"),
        ("train.gradient_checkpointing=on", "train.gradient_checkpointing='on': must be true or false"),
        ("train.device=gpu", "train.device='gpu': must be auto, cpu, cuda, cuda:N or mps"),
        ("data.template=News", "data.template='News': must be text with {}"),
        ("train.class_weights=equal", "train.class_weights='equal': must be balanced, list or {class: number}"),
    ],
)
def test_a_message_says_what_a_value_must_be(assignment: str, message: str) -> None:
    assert message in refused("quickstart", [assignment])


@pytest.mark.parametrize(
    "assignment",
    [
        "train.learning_rate=inf",
        "train.learning_rate=.inf",
        "lora.alpha=inf",
        "train.epochs=inf",
        "train.warmup=inf",
        "train.class_weights=nan,1,1,1",
        "train.class_weights=inf,1,1,1",
        "train.class_weights={World: .nan}",
        "data.validation=.inf",
    ],
)
def test_infinity_and_not_a_number_are_refused(assignment: str) -> None:
    refused("quickstart", [assignment])


@pytest.mark.parametrize("assignment", ["lora.rank=[", "train.patience='a", "train.class_weights={a", "seed=*x"])
def test_a_value_that_is_not_yaml_is_refused(assignment: str) -> None:
    message = refused("quickstart", [assignment])
    assert "cannot be read: " in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("text", ["lora: 3", "lora: [rank]", "lora: rank", "data:"])
def test_a_section_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    section = text[:4]
    key = "lora.rank=4" if section == "lora" else "data.split_seed=1"
    for overrides in ([], [key]):
        assert f"{section}=" in refused(write(tmp_path / "a.yaml", text), overrides)


def test_a_template_without_braces_is_refused() -> None:
    assert "data.template" in refused("quickstart", ["data.template=News"])


@pytest.mark.parametrize(
    ("assignments", "part"),
    [
        (["data.augment=swap", "data.augment_ratio=-1"], "data.augment_ratio=-1"),
        (["data.augment=swap", "data.augment_strength=0"], "data.augment_strength=0"),
    ],
)
def test_augmentation_out_of_range_is_refused(assignments: list[str], part: str) -> None:
    assert part in refused("quickstart", assignments)


CONFLICTS = [
    ["model.freeze=0-2"],
    ["data.augment_ratio=0.5"],
    ["data.augment_strength=0.3"],
    ["data.back_translation=a,b"],
    ["data.augment=swap", "data.back_translation=a,b"],
    ["data.augment=back_translation", "data.back_translation=a"],
    ["data.template={text} is about {}."],
    ["model.head=prompt", "train.head_init=random", "model.pooling=cls"],
    ["model.head=prompt", "train.head_init=probe"],
]


@pytest.mark.parametrize("assignments", CONFLICTS, ids=" ".join)
def test_the_fix_of_a_conflict_works_when_pasted(assignments: list[str]) -> None:
    message = refused("roberta-search", assignments)
    assert assignments[-1].partition("=")[0] in message
    fix = re.search(r"(?:add|write)\s(\S+=[^\s]+)", message)
    assert fix, message
    load_config("roberta-search", [*assignments, fix[1].rstrip(",")])


def test_every_conflict_is_named_at_once() -> None:
    message = refused("quickstart", ["model.freeze=0", "data.augment_ratio=2", "data.template={text} {}"])
    assert all(name in message for name in ("model.freeze", "data.augment_ratio", "model.head=prompt"))


def test_an_unknown_recipe_suggests_the_nearest_and_lists_all() -> None:
    message = refused("roberta-searhc")
    assert "'roberta-searhc' is neither a recipe nor a file; did you mean 'roberta-search'?" in message
    assert all(name in message for name in RECIPES)


def test_a_missing_file_is_named() -> None:
    assert "nowhere.yaml" in refused("nowhere.yaml")
    assert "nowhere.csv" in refused("nowhere.csv")


# Files that are no settings


@pytest.mark.parametrize(
    ("text", "what"), [("- 1\n- 2", "list"), ("abc", "str"), ("3", "int"), ("2001-01-01", "str"), ("yes", "str"), ("true", "bool")]
)
def test_a_file_that_holds_no_mapping_is_refused(tmp_path: Path, text: str, what: str) -> None:
    assert f"holds a {what}" in refused(write(tmp_path / "a.yaml", text))


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "# " + "x" * MAX_YAML_BYTES)
    assert "that is not a settings file" in refused(file)
    assert load_config(write(tmp_path / "b.yaml", "# " + "x" * (MAX_YAML_BYTES - 2))) == Config()


@pytest.mark.parametrize(
    "content",
    [
        b"lora: {rank",
        b"\xff\xfe\x00lora",
        b"name: \x00",
        b"a: 1\n---\nb: 2",
        b"lora: !!python/object/apply:os.system ['true']",
        b"seed: *nothing",
        b"? [a]\n: 1\n",
        b"seed: " + b"9" * 5000,
        b"lora: " + b"[" * 20000,
        b"{a: " * 5000,
    ],
    ids=["cut", "binary", "nul", "two", "tag", "anchor", "key", "digits", "brackets", "braces"],
)
def test_damaged_and_hostile_yaml_is_one_message(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    assert "a.yaml" in refused(tmp_path / "a.yaml")


@pytest.mark.parametrize("value", ["2001-99-99", "9" * 5000, "[" * 20000], ids=["date", "digits", "brackets"])
def test_hostile_yaml_in_an_override_is_one_message(value: str) -> None:
    assert "seed" in refused("quickstart", [f"seed={value}"])


@pytest.mark.parametrize("text", ["1: 2", "lora: {1: 2}", "~: 2", "lora: &a {rank: *a}", "data: {text: &a [*a]}"])
def test_odd_keys_and_loops_are_one_message(tmp_path: Path, text: str) -> None:
    assert len(refused(write(tmp_path / "a.yaml", text))) < 1000


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))
READ = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from loralab.config import load_config
from loralab.errors import LoralabError
for file in sys.argv[1:]:
    try:
        load_config(file)
    except LoralabError as error:
        print(len(str(error)))
"""


@pytest.mark.timed
def test_a_yaml_bomb_is_refused_at_once_with_a_short_message(tmp_path: Path) -> None:
    places = ("lora: {rank: *a9}", "data: {text: *a9}", "train: {class_weights: *a9}", "lora: {layers: *a9}", "*a9 : 1")
    files = [write(tmp_path / f"{i}.yaml", f"{BOMB}{place}\n") for i, place in enumerate(places)]
    done = subprocess.run([sys.executable, "-c", READ, *map(str, files)], capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    lengths = [int(line) for line in done.stdout.split()]
    assert len(lengths) == len(places)
    assert max(lengths) < 100_000


def test_a_long_value_gives_a_short_message(tmp_path: Path) -> None:
    assert len(refused(write(tmp_path / "a.yaml", f"lora: {{rank: {'x' * 500_000}}}"))) < 10_000


# Whole messages: what is wrong, which value, what to do


@pytest.mark.parametrize(
    ("assignment", "rest"),
    [
        (
            "gradient_accumulation_steps=2",
            "write train.batch_size=16 for 2 times 8 examples (it counts the examples of an optimizer step, which "
            "train.max_tokens_per_microbatch splits into micro-batches)",
        ),
        ("gradient_accumulation=1", "write train.batch_size=8 for 1 times 8 examples (it"),
        ("accumulate_grad_batches=9999", "write train.batch_size=79992 for 9999 times"),
        ("gradient_accumulation_steps=10000", "write train.batch_size=32 for 4 times"),
        ("gradient_accumulation_steps=0", "write train.batch_size=32 for 4 times"),
        ("gradient_accumulation_steps=-3", "write train.batch_size=32 for 4 times"),
        (
            "per_device_train_batch_size=8",
            "write train.batch_size=8 (it counts the examples of an optimizer step, over all devices)",
        ),
        ("per_device_train_batch_size=", "write train.batch_size=16 (it"),
        ("early_stopping=5", "write train.patience=5"),
        ("early_stopping=0", "write train.patience=none"),
        ("early_stopping=Off", "write train.patience=none"),
        ("early_stopping=true", "write train.patience=3"),
        ("early_stopping=2.5", "write train.patience=3"),
        ("metric_for_best_model=eval_f1", "write train.monitor=macro_f1"),
        ("metric=val_accuracy", "write train.monitor=accuracy"),
        ("eval_metric=F1", "write train.monitor=macro_f1"),
        ("target_modules=[q_proj, 'v_proj', q_lin]", "write lora.targets=query,value"),
        ('target_modules=["key",,mine]', "write lora.targets=key,mine"),
        ("target_modules=[Xq, X]", "write lora.targets=Xq,X"),
        ("target_modules=", "write lora.targets=query,value"),
        ("fp16=No", "write train.precision=auto"),
        ("fp16=TRUE", "write train.precision=fp16"),
        ("bf16=0", "write train.precision=auto"),
        ("use_lora=none", "write tuning=full"),
        ("optim=AdamW_Torch", "write train.optimizer=adamw"),
        ("Optim=sgd", "write train.optimizer=sgd"),
        ("num-train-epochs=2", "write train.epochs=2"),
        ("train.lora.r=4", "write lora.rank=4"),
        ("logging_steps=10", "leave it out; every step is logged"),
        ("lora=8", "lora is a section; write a setting of it, such as lora.rank, which `loralab settings lora.` lists"),
        ("zzzzzz=1", "`loralab settings` lists all settings"),
        ("train.zzz=1", "`loralab settings train.` lists the settings of train"),
    ],
)
def test_an_unknown_setting_says_what_to_write(assignment: str, rest: str) -> None:
    start = f"unknown setting {assignment.partition('=')[0]!r}: "
    message = refused("quickstart", [assignment])
    assert message.startswith(start + rest) if rest.endswith(("(it", "times")) else message == start + rest


def test_a_list_or_nothing_in_a_file_is_written_as_in_an_override(tmp_path: Path) -> None:
    assert "'target_modules': write lora.targets: query,value" in refused(write(tmp_path / "a.yaml", "target_modules: [q_proj, v]"))
    assert "'class_names': write data.classes: a,b" in refused(write(tmp_path / "f.yaml", "class_names: [a, b]"))
    assert "'rank': write lora.rank: \n" in refused(write(tmp_path / "b.yaml", "rank:")) + "\n"
    assert "'trian'; did you mean the section 'train'?" in refused(write(tmp_path / "c.yaml", "trian: {epochs: 3}"))
    assert "'trian': `loralab settings` lists all settings" in refused(write(tmp_path / "d.yaml", "trian: 3"))
    assert "'data.trian': `loralab settings data.`" in refused(write(tmp_path / "e.yaml", "data: {trian: {epochs: 3}}"))


@pytest.mark.parametrize(
    ("key", "similar"),
    [
        ("rank", ["lora.rank"]),
        ("Train.RANK", ["lora.rank"]),
        ("dropout", ["model.dropout", "lora.dropout"]),
        ("warmup_fraction", ["train.warmup"]),
        ("use-gradient-checkpointing", ["train.gradient_checkpointing"]),
        ("rate", ["train.learning_rate", "train.head_learning_rate"]),
        ("samples_max", ["data.max_train_samples", "data.max_test_samples"]),
        ("head", ["model.head"]),
        ("bsae", ["model.base"]),
        ("zz", []),
        ("of_id", []),
    ],
)
def test_settings_are_similar_by_their_last_word(key: str, similar: list[str]) -> None:
    assert similar_settings(key, setting_names()) == similar


def test_similar_words_are_close_or_share_all_their_parts() -> None:
    assert similar_settings("my_own_tops", ["a.tops"]) == ["a.tops"]
    assert similar_settings("my_own_top", ["a.top"]) == [], "words of three letters are in too many names"
    assert similar_settings("size_of_batch", ["a.batch_size", "b.size_test"]) == ["a.batch_size"]
    assert similar_settings("ranks", ["b.rang", "a.rank"]) == ["a.rank"]


def test_at_most_three_settings_are_similar() -> None:
    assert similar_settings("size", ["a.batch_size", "b.batch_size", "c.test_size", "d.test_size"]) == [
        "a.batch_size",
        "b.batch_size",
        "c.test_size",
    ]


@pytest.mark.parametrize(
    ("setting", "value", "whole", "hint"),
    [
        ("train.max_steps", 1000.0, True, "; did you mean 1000?"),
        ("train.max_steps", 1000.0, False, ""),
        ("train.max_steps", 8.5, True, ""),
        ("train.precision", 16, False, "; did you mean 'fp16'?"),
        ("train.precision", "FP32", False, "; did you mean 'fp32'?"),
        ("train.precision", "fp61", False, "; did you mean 'fp16'?"),
        ("train.precision", "wide", False, ""),
        ("train.precision", ["fp61"], False, ""),
    ],
)
def test_a_value_suggests_a_similar_one(setting: str, value: object, whole: bool, hint: str) -> None:
    assert similar_value(setting, value, ("fp32", "bf16", "fp16"), whole) == hint
    assert similar_value("a", "161", ("16",), whole) == "; did you mean '16'?"
    assert similar_value("a", 161, ("16",), whole) == "", "a number is no misspelt word"


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (
            ["model.freeze=0-2"],
            "model.freeze=0-2 has no effect with tuning=lora, which freezes the whole encoder: add tuning=full, or remove "
            "model.freeze",
        ),
        (
            ["data.augment_ratio=0.5"],
            "data.augment_ratio has no effect without a technique: add data.augment=swap, or remove data.augment_ratio",
        ),
        (
            ["data.augment_strength=0.3"],
            "data.augment_strength has no effect without a technique: add data.augment=swap, or remove data.augment_strength",
        ),
        (
            ["data.augment=swap", "data.back_translation=a,b"],
            "data.back_translation has no effect without the technique: add data.augment=back_translation",
        ),
        (
            ["data.augment=back_translation", "data.back_translation=a"],
            "data.back_translation needs two checkpoints, forward and back: write "
            "data.back_translation=Helsinki-NLP/opus-mt-en-fr,Helsinki-NLP/opus-mt-fr-en",
        ),
        (["data.template={text}: {}"], "{text} in data.template has no effect without a prompt: add model.head=prompt"),
        (
            ["model.head=prompt", "model.pooling=cls", "data.template=On {}."],
            "model.pooling=cls has no effect with model.head=prompt, which reads the mask: write model.pooling=auto",
        ),
        *(
            (
                ["model.head=prompt", f"train.head_init={init}", "data.template=On {}."],
                f"train.head_init={init} would replace the words that model.head=prompt starts from: write "
                "train.head_init=descriptions",
            )
            for init in ("probe", "probe+descriptions")
        ),
        *(
            (
                ["model.head=prompt", f"data.template={template}"],
                f"data.template={template!r}: model.head=prompt takes one {{}}, for the mask, and at most one {{text}}, such as "
                "'{text} This is news about {}.'",
            )
            for template in ("{} {}", "{text} {} {text}")
        ),
    ],
)
def test_a_conflict_says_what_to_change(assignments: list[str], message: str, tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "seed: 1")
    assert refused(file, assignments) == f"{file}: {message}"


@pytest.mark.parametrize(
    "assignments",
    [
        ["model.freeze=0-2", "tuning=full"],
        ["data.augment_ratio=0.25", "data.augment_strength=0.1"],
        ["data.augment_ratio=0"],
        ["data.augment=back_translation", "data.back_translation=a,b"],
        ["model.head=prompt", "data.template={text} On {}."],
        ["model.head=prompt", "data.template=On {}.", "train.head_init=descriptions"],
    ],
)
def test_settings_that_suit_each_other_are_accepted(assignments: list[str], tmp_path: Path) -> None:
    load_config(write(tmp_path / "a.yaml", "seed: 1"), assignments)


def test_a_file_that_is_no_yaml_says_where(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "seed: 1\nlora: {rank: ]}\n")
    assert refused(file) == f"cannot read the settings file {file}: expected the node content, but found ']' in line 2, column 14"
    file = write(tmp_path / "b.yaml", "seed: 1\nseed: 2\n")
    assert refused(file) == f"cannot read the settings file {file}: the key 'seed' occurs more than once"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("ab", "a delimiter is one character, or one of {names}"),
        ('"', "a quote or a line break cannot divide columns"),
        ("\n", "a quote or a line break cannot divide columns"),
        ("\r", "a quote or a line break cannot divide columns"),
    ],
)
def test_what_cannot_divide_columns(value: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message.format(names=", ".join(DELIMITER_NAMES)))):
        DataConfig(delimiter=value)


def test_columns_may_have_numbers_for_names() -> None:
    data = DataConfig(label=3, id=2.5, time=datetime.date(2026, 1, 2))
    assert (data.label, data.id, data.time) == ("3", "2.5", "2026-01-02")
    assert [DataConfig(delimiter=value).delimiter for value in (";", "|", "tab")] == [";", "|", "tab"]
    with pytest.raises(ValueError, match="label"):
        DataConfig(label=True)


def test_a_damaged_run_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"seed: \xff\n...\n")
    assert refused(tmp_path).startswith(f"{tmp_path / 'config.yaml'} is damaged: 'utf-8' codec can't decode byte 0xff")
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    assert refused(tmp_path) == (
        f"{tmp_path / 'config.yaml'} is cut off: its last line is not '...'; restore it from a copy or train again"
    )


def test_a_message_names_the_section_the_value_and_the_rule(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yml", "train: {rank: 4}")
    assert refused(file) == f"{file}: unknown setting 'train.rank': write lora.rank: 4"
    file = write(tmp_path / "b.yaml", "lora: 3")
    assert refused(file) == f"{file}: lora=3: must be a section of settings, such as lora: {{rank: 8}}"
    message = refused("quickstart", ["data.delimiter=ab"])
    assert message.startswith("recipe quickstart: data.delimiter='ab': a delimiter is one character, or one of tab, ")
    assert refused("quickstart", ["lora.rank=["]).startswith("lora.rank: '[' cannot be read: expected the node content, but found ")


def test_classes_may_be_called_true_and_false() -> None:
    weights = load_config("quickstart", ["train.class_weights={true: 2, no: 1}"]).train.class_weights
    assert weights == {"true": 2.0, "no": 1.0}
