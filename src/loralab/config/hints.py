"""What to write instead of an unknown setting: the settings of other libraries under their names here, and near misses."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence

from loralab.errors import suggest

_RENAMED: Mapping[str, tuple[str, ...]] = {
    "train.learning_rate": ("lr", "learningrate", "max_lr", "initial_lr"),
    "train.head_learning_rate": ("learning_rate_head", "lr_head", "head_lr", "classifier_lr"),
    "train.epochs": ("num_train_epochs", "num_epochs", "n_epochs", "max_epochs"),
    "train.batch_size": ("train_batch_size", "per_gpu_train_batch_size", "bs", "global_batch_size"),
    "train.weight_decay": ("wd", "l2"),
    "train.warmup": ("warmup_ratio", "warmup_steps", "num_warmup_steps"),
    "train.label_smoothing": ("label_smoothing_factor",),
    "train.focal_gamma": ("gamma", "focal_loss_gamma"),
    "train.class_weights": ("class_weight",),
    "train.patience": ("early_stopping_patience",),
    "train.min_delta": ("early_stopping_threshold", "early_stopping_min_delta"),
    "train.max_grad_norm": ("gradient_clip_val", "clip_grad_norm", "max_norm", "gradient_clipping", "grad_clip"),
    "train.optimizer": ("optimiser", "optimizer_type"),
    "train.eval_steps": ("eval_every", "evaluation_steps", "val_check_interval"),
    "train.threads": ("num_threads", "cpu_threads"),
    "lora.rank": ("r", "lora_r", "lora_rank"),
    "lora.alpha": ("lora_alpha",),
    "lora.dropout": ("lora_dropout",),
    "lora.layers": ("layers_to_transform",),
    "lora.loraplus_lr_ratio": ("loraplus_lambda",),
    "lora.max_trainable": ("max_trainable_parameters", "max_params", "trainable_budget", "parameter_budget"),
    "model.base": ("model_name_or_path", "pretrained_model_name_or_path", "model_name", "base_model", "encoder", "checkpoint"),
    "model.pooling": ("pooling_mode", "pooling_type"),
    "model.dropout": ("classifier_dropout", "hidden_dropout_prob", "head_dropout"),
    "data.source": ("dataset", "dataset_name", "train_file", "data_path", "train_path", "data_file", "data_dir"),
    "data.test": ("test_file", "test_size", "test_path", "test_split"),
    "data.validation": ("validation_file", "validation_split", "val_size", "val_split", "dev_file", "eval_file", "val_file"),
    "data.text": ("text_column", "text_column_name", "text_field", "sentence1_key"),
    "data.label": ("label_column", "label_column_name", "label_field", "target_column"),
    "data.classes": ("class_names", "label_names", "label_list"),
    "data.max_length": ("max_seq_length", "max_seq_len", "max_len", "model_max_length", "sequence_length"),
    "data.max_train_samples": ("max_samples", "max_train_rows", "num_train_samples"),
    "data.max_test_samples": ("max_eval_samples", "max_predict_samples"),
    "data.shots_per_class": ("num_shots", "n_shots", "k_shot"),
    "seed": ("random_state", "random_seed", "manual_seed", "data_seed"),
    "name": ("run_name", "experiment_name"),
}
_OTHER_NAMES = {name: setting for setting, others in _RENAMED.items() for name in others}

_LEAVE_OUT = {
    **dict.fromkeys(("logging_steps", "logging_strategy", "logging_first_step"), "every step is logged"),
    "load_best_model_at_end": "the best weights by train.monitor are always kept",
    "greater_is_better": "the direction follows from train.monitor",
    **dict.fromkeys(("num_labels", "num_classes"), "the classes come from the data"),
    **dict.fromkeys(("save_steps", "save_strategy"), "every evaluation saves a checkpoint"),
    "save_total_limit": "a run keeps one checkpoint until it is complete",
    "group_by_length": "micro-batches always group texts of similar length",
    **dict.fromkeys(("pad_to_max_length", "padding"), "texts are padded to the longest text of their micro-batch only"),
    "truncation": "texts are always truncated to data.max_length tokens",
    **dict.fromkeys(("dataloader_num_workers", "num_workers"), "texts are tokenized once; train.threads sets the CPU threads"),
    "dataloader_drop_last": "every training row is used",
    "shuffle": "training rows are always shuffled",
    "stratify": "splits are always stratified by class",
    **dict.fromkeys(("tokenizer", "tokenizer_name", "tokenizer_name_or_path"), "the tokenizer is that of model.base"),
    "dataloader_pin_memory": "it is not needed",
    "remove_unused_columns": "only the text and label columns are read",
    **dict.fromkeys(
        ("per_device_eval_batch_size", "eval_batch_size", "eval_accumulation_steps"),
        "train.max_tokens_per_microbatch sizes the batches of evaluations",
    ),
    "auto_find_batch_size": "train.max_tokens_per_microbatch limits memory without changing the batch",
    "task_type": "every model is a sequence classifier",
    "problem_type": "every model is a single-label classifier",
    "modules_to_save": "the head is always trained and saved",
    **dict.fromkeys(("bias", "lora_bias"), "biases stay frozen with LoRA"),
    "fan_in_fan_out": "it follows from the architecture",
    **dict.fromkeys(
        ("adam_beta1", "adam_beta2", "adam_epsilon", "adam_betas", "betas", "beta1", "beta2", "eps", "epsilon"),
        "optimizers run with torch's defaults",
    ),
    "momentum": "train.optimizer=sgd runs with momentum 0.9",
    **dict.fromkeys(
        ("loss", "loss_fn", "loss_type", "criterion"),
        "the loss is cross-entropy, which train.class_weights, train.label_smoothing and train.focal_gamma change",
    ),
    **dict.fromkeys(("torch_compile", "compile"), "the encoder has its own compiled kernels"),
    **dict.fromkeys(("deepspeed", "fsdp", "ddp_backend", "local_rank", "devices", "num_nodes"), "torchrun starts the processes"),
    "disable_tqdm": "loralab train -q hides the progress bar",
    **dict.fromkeys(("do_train", "do_eval"), "loralab train trains and tests"),
    "do_predict": "loralab predict classifies",
    "output_dir": "--runs FOLDER and --name NAME say where the run is written",
    "overwrite_output_dir": "--overwrite replaces a run",
    "resume_from_checkpoint": "--resume resumes a run",
    "report_to": "--track tensorboard, wandb or mlflow records the run",
    **dict.fromkeys(("push_to_hub", "hub_model_id"), "loralab export writes folders that can be uploaded"),
    "load_in_4bit": "4-bit weights are not available; model.quantize=8bit is",
}
_SCHEDULES = {"cosine": "cosine", "constant": "constant", "constant_with_warmup": "constant", "cosine_with_restarts": "cosine"}
_TARGETS = {
    "query": ("query", "q_proj", "q_lin", "q", "query_proj", "self.query"),
    "key": ("key", "k_proj", "k_lin", "k", "key_proj"),
    "value": ("value", "v_proj", "v_lin", "v", "value_proj"),
    "output": ("out_lin", "o_proj", "out_proj", "attention.output.dense", "o"),
    "ffn_in": ("lin1", "intermediate.dense", "up_proj", "fc1"),
    "ffn_out": ("lin2", "output.dense", "down_proj", "fc2"),
    "all": ("all-linear", "all", "dense"),
}
_TARGET_NAMES = {name: target for target, names in _TARGETS.items() for name in names}
_OPTIMIZERS = ["adamw_8bit", "paged_adamw_8bit", "lion_8bit", "adamw", "adamax", "adam", "nadam", "radam", "adafactor", "adagrad"]
_OPTIMIZERS += ["rmsprop", "sgd"]
_FALSE = ("false", "no", "off", "none", "0")
_VALUES: Mapping[str, Mapping[str, str]] = {
    "train.precision": {
        **dict.fromkeys(("16", "16-mixed", "float16", "half", "mixed"), "fp16"),
        **dict.fromkeys(("bf16-mixed", "bfloat16"), "bf16"),
        **dict.fromkeys(("32", "float32", "full", "no"), "fp32"),
    },
    "train.device": dict.fromkeys(("gpu", "nvidia"), "cuda"),
    "train.schedule": _SCHEDULES,
    "tuning": {"qlora": "lora", "peft": "lora", "adapter": "lora", "frozen": "head", "linear_probe": "head", "fine-tuning": "full"},
    "model.quantize": dict.fromkeys(("8", "int8", "true", "4bit", "int4"), "8bit"),
}
"""Setting → values in other libraries and ours."""
_SCORES = {"f1": "macro_f1", "f1_macro": "macro_f1", "eval_f1": "macro_f1", "acc": "accuracy"}


def _target_modules(value: str) -> str:
    names = [name.strip(" '\"") for name in value.strip("[]").split(",") if name.strip()]
    return f"lora.targets={','.join(dict.fromkeys(_TARGET_NAMES.get(name, name) for name in names)) or 'query,value'}"


def _optim(value: str) -> str:
    plain = value.lower().replace("bnb_", "").replace("_torch", "")
    return f"train.optimizer={next((name for name in _OPTIMIZERS if plain.startswith(name)), 'adamw')}"


def _monitor(value: str) -> str:
    score = value.removeprefix("eval_").removeprefix("val_")
    return f"train.monitor={_SCORES.get(score, score) or 'accuracy'}"


def _accumulation(value: str) -> str:
    steps = int(value) if value.isdecimal() and 0 < int(value) < 10_000 else 4
    return (
        f"train.batch_size={8 * steps} for {steps} times 8 examples (it counts the examples of an optimizer step, which "
        "train.max_tokens_per_microbatch splits into micro-batches)"
    )


def _if_true(assignment: str, otherwise: str) -> Callable[[str], str]:
    return lambda value: otherwise if value.lower() in _FALSE else assignment


_CONVERTED: Mapping[str, Callable[[str], str]] = {
    "target_modules": _target_modules,
    "lora_target_modules": _target_modules,
    "optim": _optim,
    "metric_for_best_model": _monitor,
    "eval_metric": _monitor,
    "metric": _monitor,
    "gradient_accumulation_steps": _accumulation,
    "gradient_accumulation": _accumulation,
    "accumulate_grad_batches": _accumulation,
    "per_device_train_batch_size": lambda value: (
        f"train.batch_size={value or 16} (it counts the examples of an optimizer step, over all devices)"
    ),
    "lr_scheduler_type": lambda value: f"train.schedule={_SCHEDULES.get(value, 'linear')}",
    "lr_scheduler": lambda value: f"train.schedule={_SCHEDULES.get(value, 'linear')}",
    "early_stopping": lambda value: (
        f"train.patience={value if value.isdecimal() and int(value) else 'none' if value.lower() in _FALSE else 3}"
    ),
    **dict.fromkeys(("amp", "use_amp"), _if_true("train.precision=auto", "train.precision=fp32")),
    "half": _if_true("train.precision=fp16", "train.precision=auto"),
    "fp16": _if_true("train.precision=fp16", "train.precision=auto"),
    "bf16": _if_true("train.precision=bf16", "train.precision=auto"),
    "mixed_precision": lambda value: f"train.precision={value if value in ('fp16', 'bf16') else 'auto'}",
    "use_cpu": _if_true("train.device=cpu", "train.device=auto"),
    "no_cuda": _if_true("train.device=cpu", "train.device=auto"),
    **dict.fromkeys(("gpu", "gpus", "use_gpu"), _if_true("train.device=cuda", "train.device=cpu")),
    "load_in_8bit": _if_true("model.quantize=8bit", "model.quantize=none"),
    "use_lora": _if_true("tuning=lora", "tuning=full"),
    "peft_type": lambda value: f"lora.variant={value.lower() if value.lower() in ('adalora', 'vera', 'ia3') else 'lora'}",
    "use_rslora": _if_true("lora.variant=rslora", "lora.variant=lora"),
    "use_dora": _if_true("lora.variant=dora", "lora.variant=lora"),
    "init_lora_weights": lambda value: f"lora.variant={'pissa' if value.startswith('pissa') else 'lora'}",
    "evaluation_strategy": lambda value: "train.eval_steps=" + ("100" if value == "steps" else "none for an evaluation per epoch"),
    "eval_strategy": lambda value: "train.eval_steps=" + ("100" if value == "steps" else "none for an evaluation per epoch"),
}
"""Name → what to write for a value."""


def other_names(setting: str) -> tuple[str, ...]:
    """Return the names of a setting in other libraries."""
    return _RENAMED.get(setting, ())


def unknown_setting(key: str, value: object, names: Sequence[str]) -> str:
    """Return the message for a setting that is not one of `names`: what to write, or up to three settings with similar names."""
    last = _last_word(key)
    text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else "" if value is None else str(value)
    start = f"unknown setting {key!r}"
    sections = {name.partition(".")[0]: name for name in reversed(names) if "." in name}
    if key in sections:
        return f"{start}: {key} is a section; write a setting of it, such as {sections[key]}, which `loralab settings {key}.` lists"
    if "." not in key and isinstance(value, dict) and (similar := difflib.get_close_matches(key, sections, n=1)):
        return f"{start}; did you mean the section {similar[0]!r}?"
    if last in _OTHER_NAMES:
        return f"{start}: write {_OTHER_NAMES[last]}={_our_value(_OTHER_NAMES[last], text)}"
    if last in _CONVERTED:
        return f"{start}: write {_CONVERTED[last](text)}"
    if last in _LEAVE_OUT:
        return f"{start}: leave it out; {_LEAVE_OUT[last]}"
    close = similar_settings(key, names)
    if len(close) == 1 and last == _last_word(close[0]):  # the section alone is missing or wrong
        return f"{start}: write {close[0]}={_our_value(close[0], text)}"
    if close:
        return f"{start}; did you mean {' or '.join(map(repr, close))}?"
    section = key.partition(".")[0]
    return f"{start}: " + (
        f"`loralab settings {section}.` lists the settings of {section}"
        if section in sections
        else "`loralab settings` lists all settings"
    )


def similar_settings(key: str, names: Sequence[str]) -> list[str]:
    """Return up to three settings whose last word, without the section, equals, contains or resembles that of `key`."""
    last, by_last = _last_word(key), dict[str, list[str]]()
    for name in names:
        by_last.setdefault(_last_word(name), []).append(name)
    parts = {*last.split("_")}
    related = [word for word in by_last if len(word) > 3 and ({*word.split("_")} <= parts or parts <= {*word.split("_")})]
    words = [last] if last in by_last else difflib.get_close_matches(last, by_last, n=1, cutoff=0.7) or related
    return [name for word in words for name in by_last[word]][:3]


def similar_value(setting: str, value: object, choices: Sequence[str], whole: bool) -> str:
    """Return `"; did you mean 'fp16'?"` for a value that another library takes, or one close to a valid value; else nothing."""
    if whole and isinstance(value, float) and value.is_integer():
        return f"; did you mean {value:.0f}?"
    text = str(value).lower()
    if (ours := _our_value(setting, text)) != text or text in choices:
        return f"; did you mean {ours!r}?"
    return suggest(text, choices) if isinstance(value, str) else ""


def _our_value(setting: str, text: str) -> str:
    """Return the value that `text` has here, or `text` if it has no other name."""
    if setting == "train.optimizer" and text.lower().startswith(("adam", "paged", "rmsprop", "sgd")):
        return _optim(text).partition("=")[2]
    return _VALUES.get(setting, {}).get(text.lower(), text)


def _last_word(key: str) -> str:
    return key.rpartition(".")[2].lower().replace("-", "_")
