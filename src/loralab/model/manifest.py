"""loralab.json: what a saved model needs besides its weights to classify texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StrictInt, TypeAdapter
from pydantic.dataclasses import dataclass as validated

from loralab.config import LoraConfig
from loralab.errors import LoralabError
from loralab.model.architectures import Dimensions, HeadKind, Pooling, Sizes, is_native
from loralab.storage.data_contract import DataContract
from loralab.storage.files import atomic_write

MANIFEST, FORMAT = "loralab.json", 1


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class Manifest:
    """The settings of a saved model: classes, text cleaning, pooling, head, temperature, and the identity of its base.

    base_folder: where the base was on the disk of the run; empty in a published model. base_revision: its commit on the hub, if it
    came from there. base_license: what the base's own card names, if it has one. by_peft: peft saved the adapter, and only peft can
    read it.
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

    @property
    def base_path(self) -> Path | None:
        """The base's folder, if it is known and still there."""
        return folder if self.base_folder and (folder := Path(self.base_folder)).is_dir() else None

    @property
    def native(self) -> bool:
        """Whether loralab's own encoder computes the model."""
        return not self.by_peft and is_native(self.dims, tuning=self.tuning, variant=self.lora.variant, quantize=self.quantize)

    def write(self, folder: Path) -> None:
        """Write loralab.json into a folder, atomically."""
        with atomic_write(folder / MANIFEST) as file:
            file.write(self.to_json())

    def to_json(self) -> str:
        """Return the content of loralab.json."""
        return json.dumps({"format": FORMAT, **_ADAPTER.dump_python(self, mode="json")}, indent=2) + "\n"


_ADAPTER: TypeAdapter[Any] = TypeAdapter(Manifest)


def read_manifest(folder: Path) -> Manifest:
    """Read loralab.json. Raises LoralabError if it is missing, damaged or of a later format."""
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise LoralabError(f"{path} does not have format {FORMAT}: was it written by a later loralab?")
        manifest: Manifest = _ADAPTER.validate_python(content)
        return manifest
    except FileNotFoundError as error:
        raise LoralabError(f"{folder} is neither a run nor a saved model: it has no {MANIFEST}") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise LoralabError(f"{path} is damaged ({error!r}): restore the run from a copy or train it again") from error
