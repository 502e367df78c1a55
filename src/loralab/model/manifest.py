"""loralab.json: what a saved model needs besides its weights to classify texts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StrictInt, TypeAdapter
from pydantic.dataclasses import dataclass as validated

from loralab.config import LoraConfig
from loralab.errors import LoralabError
from loralab.model.architectures import Dimensions, HeadKind, Pooling, Sizes, is_native
from loralab.safe_files import MAX_SETTINGS_BYTES, check_file, exists
from loralab.storage import run_folder
from loralab.storage.data_contract import DataContract
from loralab.storage.files import atomic_write
from loralab.storage.sealed import FileRecord, check_file_record, read_sealed, record_files, seal

MANIFEST = run_folder.MANIFEST
ADVICE = "restore the run from a copy, or train it again"
READ_FILES = (
    *("adapter_config.json", "adapter_model.safetensors", "head.safetensors", "model.safetensors", "model.onnx"),
    *("config.json", "encoder_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "added_tokens.json"),
    *("special_tokens_map.json", "merges.txt", "bpe.codes"),
)
"""Every file that loralab may read of a model's folder. The manifest has the checksums of those that were written."""


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class Manifest:
    """The settings of a saved model: classes, text cleaning, pooling, head, temperature, and the identity of its base.

    base_folder: where the base was on the disk of the run; empty in a published model. base_revision: its commit on the hub, if it
    came from there. base_license: what the base's own card names, if it has one. by_peft: peft saved the adapter, and only peft can
    read it. files: size and SHA-256 of the model's files, by name; empty if they were written without.
    precision: `train.precision` of the run. `Classifier.load` computes in it, so that the model keeps its test scores.
    """

    base: str
    base_folder: str
    base_sha256: str
    dims: Dimensions | Sizes
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    pooling: Pooling
    head: HeadKind
    tuning: Literal["lora", "full", "head"]
    clean: tuple[str, ...]
    max_length: Annotated[StrictInt, Field(gt=0)]
    lora: LoraConfig
    quantize: Literal["none", "8bit"] = "none"
    base_revision: str | None = None
    data: DataContract | None = None
    by_peft: bool = False
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    base_license: str | None = None
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    files: Annotated[Mapping[str, FileRecord], Field(exclude=True)] = dataclasses.field(default_factory=dict, compare=False)

    @property
    def base_path(self) -> Path | None:
        """The base's folder, if it is known and still there."""
        return folder if self.base_folder and (folder := Path(self.base_folder)).is_dir() else None

    @property
    def native(self) -> bool:
        """Whether loralab's own encoder computes the model."""
        return not self.by_peft and is_native(self.dims, tuning=self.tuning, variant=self.lora.variant, quantize=self.quantize)

    def with_records(self, folder: Path) -> Manifest:
        """Return the manifest with the checksums of the files in a folder. Raises OSError."""
        return dataclasses.replace(self, files=record_files(folder, READ_FILES))

    def check_files(self, folder: Path) -> None:
        """Raise LoralabError that names a file of the folder that is not the one that was written, or no regular file."""
        for name in READ_FILES:
            if exists(folder / name):
                check_file(folder / name, MAX_SETTINGS_BYTES if name.endswith((".json", ".txt")) else None)
        for name in dict.fromkeys((*self.files, *READ_FILES)):
            check_file_record(folder / name, name, self.files, folder / MANIFEST, ADVICE)

    def write(self, folder: Path) -> None:
        """Write loralab.json into a folder, atomically."""
        with atomic_write(folder / MANIFEST) as file:
            file.write(self.to_json())

    def to_json(self) -> str:
        """Return the content of loralab.json."""
        content = _ADAPTER.dump_python(self, mode="json")
        return json.dumps(seal(content, self.files, format_key="format"), indent=2) + "\n"


_ADAPTER: TypeAdapter[Any] = TypeAdapter(Manifest)


def read_manifest(folder: Path) -> Manifest:
    """Read loralab.json. Raises LoralabError if it is missing, damaged or of a later format."""
    path = folder / MANIFEST
    if not exists(path):
        raise LoralabError(f"{folder} is neither a run nor a saved model: it has no {MANIFEST}")
    sealed = read_sealed(path, ADVICE, format_key="format")
    try:
        manifest: Manifest = _ADAPTER.validate_python({**sealed.content, "files": sealed.files})
    except (ValueError, TypeError, RecursionError) as error:
        raise LoralabError(f"{path} is damaged ({error!r}): {ADVICE}") from error
    return manifest
