"""What to write instead of an unknown setting: the settings of other libraries under their names here, and near misses."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources

from loralab.config.yaml_core import parse_yaml
from loralab.errors import suggest

_Values = Mapping[str, Sequence[str]]
"""A value here → patterns of the values elsewhere."""
_FALSE = ("false", "no", "off", "none", "0")


@dataclass(frozen=True)
class OtherNames:
    """The contents of other_names.yaml. renamed, left_out: name → setting, reason; converted: name → setting and its values."""

    renamed: Mapping[str, str]
    values: Mapping[str, _Values]
    converted: Mapping[str, tuple[str, _Values]]
    left_out: Mapping[str, str]


@cache
def other_names() -> OtherNames:
    """Return the names of settings and values in other libraries."""
    content = parse_yaml((resources.files("loralab.config") / "other_names.yaml").read_text(encoding="utf-8"))
    renamed, left_out = ({name: key for key, names in content[part].items() for name in names} for part in ("renamed", "left_out"))
    converted = {name: (rule["setting"], rule["values"]) for rule in content["converted"] for name in rule["names"]}
    return OtherNames(renamed, content["values"], converted, left_out)


def _accumulation(value: str) -> str:
    steps = int(value) if value.isdecimal() and 0 < int(value) < 10_000 else 4
    return (
        f"train.batch_size={8 * steps} for {steps} times 8 examples (it counts the examples of an optimizer step, which "
        "train.max_tokens_per_microbatch splits into micro-batches)"
    )


def _batch_size(value: str) -> str:
    return f"train.batch_size={value or 16} (it counts the examples of an optimizer step, over all devices)"


def _early_stopping(value: str) -> str:
    return f"train.patience={value if value.isdecimal() and int(value) else 'none' if value.lower() in _FALSE else 3}"


COMPUTED: Mapping[str, Callable[[str], str]] = {
    "gradient_accumulation_steps": _accumulation,
    "gradient_accumulation": _accumulation,
    "accumulate_grad_batches": _accumulation,
    "per_device_train_batch_size": _batch_size,
    "early_stopping": _early_stopping,
}
"""Name in another library → what to write for a value."""


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
    others = other_names()
    if last in others.renamed:
        return f"{start}: write {others.renamed[last]}={_our_value(others.renamed[last], text)}"
    if last in others.converted:
        return f"{start}: write {_convert(*others.converted[last], text)}"
    if last in COMPUTED:
        return f"{start}: write {COMPUTED[last](text)}"
    if last in others.left_out:
        return f"{start}: leave it out; {others.left_out[last]}"
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
    words = difflib.get_close_matches(last, by_last, n=1, cutoff=0.7) or related
    return [name for word in words for name in by_last[word]][:3]


def similar_value(setting: str, value: object, choices: Sequence[str], whole: bool) -> str:
    """Return `"; did you mean 'fp16'?"` for a value that another library takes, or one close to a valid value; else nothing."""
    if whole and isinstance(value, float) and value.is_integer():
        return f"; did you mean {value:.0f}?"
    text = str(value).lower()
    ours = _match(other_names().values.get(setting, {}), text)
    if ours or text in choices:
        return f"; did you mean {ours or text!r}?"
    return suggest(text, choices) if isinstance(value, str) else ""


def _our_value(setting: str, text: str) -> str:
    """Return the value that `text` has here, or `text` if it has no other name."""
    values = other_names().values.get(setting, {})
    if setting == "lora.targets":
        names = [name.strip(" '\"") for name in text.strip("[]").split(",") if name.strip()]
        return ",".join(dict.fromkeys(_match(values, name) or name for name in names)) or "query,value"
    if setting == "train.monitor":
        text = text.removeprefix("eval_").removeprefix("val_")
    return _match(values, text.lower()) or text


def _convert(setting: str, values: _Values, text: str) -> str:
    """Return the assignment for a value of a setting that has other values elsewhere."""
    word = "false" if text.lower() in _FALSE else text.lower()
    return f"{setting}={_match(other_names().values.get(setting, {}), word) or _match(values, word)}"


def _match(values: _Values, text: str) -> str | None:
    return next((ours for ours, patterns in values.items() if any(fnmatchcase(text, pattern) for pattern in patterns)), None)


def _last_word(key: str) -> str:
    return key.rpartition(".")[2].lower().replace("-", "_")
