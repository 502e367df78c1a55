"""The model card: README.md in the Hugging Face format, to publish with the model."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from loralab.config.loading import NAMED_SOURCES
from loralab.config.paths import hub_id
from loralab.report.formatting import format_value, one_line
from loralab.report.rendering import template_environment
from loralab.report.run_data import SCORE_LABELS, RunData

_HUB_DATA_SETS = {"ag_news": "fancyzhx/ag_news"}
_ENGLISH = ("ag_news", "sample")
_PATH_SETTINGS = ("data.source", "data.test", "data.validation", "data.train_indices")


_LIBRARIES = {"bundle": "loralab", "peft": "peft", "merged": "transformers"}
"""Form of a published model → the library that the hub offers to open it with."""
_PEFT_VARIANTS = ("dora", "adalora", "vera", "ia3")
"""Adapters that peft computes. A report does not load the modules of models, which have the same list."""


@dataclass(frozen=True)
class Publication:
    """A model on the hub: its repository, form and branch. license, language: the author's, None for the card's own."""

    repo_id: str
    form: Literal["bundle", "peft", "merged"]
    revision: str | None = None
    license: str | None = None
    language: str | list[str] | None = None


def model_card(run: RunData, files: frozenset[str], publication: Publication | None = None) -> str:
    """Return the card, without local paths, of a run's folder or of a published model.

    files: the names beside the weights. Raises ValueError for metadata the hub refuses.
    """
    settings = {
        row.name: format_value(_without_folders(row.name, row.value))
        for row in run.settings()
        if row.changed and row.name not in ("model.base", "model.revision", "name")
    }
    environment = template_environment()
    environment.filters["inert"] = _escape
    body = environment.get_template("model_card.md.jinja").render(
        run=run,
        result=run.result,
        parameters=run.parameters(),
        score_labels=SCORE_LABELS,
        pairs=run.predictions.class_pairs(3) if run.predictions else [],
        settings=settings,
        base=hub_id(run.config.model.base),
        source=data_name(run.config.data.source),
        files=files,
        revision=(run.environment.get("base") or {}).get("revision"),
        published=publication,
        form=publication.form if publication else "bundle",
        export_forms=export_forms(run.model, len(run.classes)),
        separate_head="head.safetensors" in files,  # peft has no place for loralab's own head: the example applies it
    )
    metadata = _metadata(run, publication).to_yaml()
    return str(ModelCard(f"---\n{metadata}\n---\n\n{body}"))  # parses the metadata back: invalid ones raise


def export_forms(model: Mapping[str, Any], classes: int) -> list[str]:
    """Return what `loralab export --to` can write for other libraries: see `inference.export_formats.check_exportable`."""
    if model.get("quantize", "none") != "none":
        return []
    pooling, head, dims = model.get("pooling"), model.get("head"), model.get("dims", {})
    native = "activation" in dims and not model.get("by_peft") and model.get("lora", {}).get("variant") not in _PEFT_VARIANTS
    fits = native and isinstance(pooling, str) and 2 * classes + 2 <= dims["width"]
    forms = ["`onnx` (ONNX Runtime)"]
    if (head == "linear" and fits) or (head == "default" and (pooling == "cls" or not native)):
        forms.append("`merged` (Transformers' `pipeline`)")
    if isinstance(pooling, str) and (head == "linear" or (head == "default" and native)):
        forms.append("`sentence-transformers`")
    return forms


def data_name(source: str) -> str:
    """Return a data source's name without its folders."""
    return source if source in NAMED_SOURCES else _printable(Path(source).name)


def _without_folders(setting: str, value: Any) -> Any:
    """Return a setting's value without the folders of paths on this disk."""
    if setting in _PATH_SETTINGS:
        return data_name(format_value(value))
    if setting == "data.back_translation":
        return tuple(hub_id(name) or data_name(name) for name in value)
    return value


def _metadata(run: RunData, publication: Publication | None) -> ModelCardData:
    source, results = data_name(run.config.data.source), None
    task: dict[str, Any] = {"task_type": "text-classification", "task_name": "Text classification"}
    task |= {"dataset_type": _HUB_DATA_SETS.get(source, "custom"), "dataset_name": source, "dataset_split": "test"}
    if run.result and run.result.scores:
        absent = sum(row["f1"] is None for row in run.per_class())
        subset = f" over {len(run.classes) - absent} of {len(run.classes)} classes" if absent else ""
        metrics = (("accuracy", "Test accuracy", "accuracy"), ("f1", f"Test macro F1{subset}", "macro_f1"))
        values = [(kind, label, round(run.result.scores[score], 4)) for kind, label, score in metrics]
        results = [EvalResult(**task, metric_type=kind, metric_name=label, metric_value=value) for kind, label, value in values]
    form = publication.form if publication else "bundle"
    adapted = run.config.tuning == "lora" and form != "merged"
    relation: dict[str, Any] = {"base_model_relation": "adapter" if adapted else "finetune"}
    return ModelCardData(
        license=(publication and publication.license) or run.model.get("base_license"),  # without one the author decides
        language=(publication and publication.language) or ("en" if source in _ENGLISH else None),
        library_name=_LIBRARIES[form],
        pipeline_tag="text-classification",
        base_model=hub_id(run.config.model.base),
        **(relation if hub_id(run.config.model.base) else {}),
        tags=["loralab", "text-classification", *(["lora", "peft"] if run.config.tuning == "lora" else [])],
        datasets=[_HUB_DATA_SETS[source]] if source in _HUB_DATA_SETS else None,
        metrics=["accuracy", "f1"],
        model_name=_printable(run.name),
        eval_results=results,
    )


def _escape(text: str) -> str:
    """Return data as inert Markdown text: no table cell, tag or code span begins in it."""
    plain = html.escape(_printable(one_line(text)), quote=False)
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", plain)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
