"""The training rows that are nearest to a text, by the cosine of the features that enter the last linear map."""

from __future__ import annotations

import logging
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from loralab.data.types import Examples
from loralab.diagnostics.diagnose import read_run_splits
from loralab.errors import LoralabError
from loralab.serve.models import ServedModel
from loralab.serve.page.features import CHUNK, FeatureModel

_log = logging.getLogger(__name__)
MAX_ROWS = 5000
"""More training rows are sampled evenly."""


class Neighbours:
    """The training rows of a model with their features, which a thread computes once."""

    def __init__(self, model: ServedModel) -> None:
        self.model = model
        self.done = self.total = 0
        self.problem = ""
        self._features: npt.NDArray[np.float32] | None = None
        self._feature_model: FeatureModel | None = None
        self._rows: Examples | None = None
        self._stopped = False
        threading.Thread(target=self._compute, name="loralab-neighbours", daemon=True).start()

    def nearest(self, text: str, count: int) -> dict[str, Any]:
        """Return the nearest rows, or how far the computation of their features is, or why there are none."""
        if self.problem:
            return {"status": "unavailable", "problem": self.problem}
        if self._features is None or self._feature_model is None or self._rows is None:
            return {"status": "computing", "done": self.done, "total": self.total}
        query = _unit(self._feature_model.compute([text]).features)[0]
        similarity = self._features @ query
        labels = self._rows.require_labels()
        rows = [
            {
                "row": int(self._rows.rows[i]),
                "text": self._rows.texts[i],
                "label": self._rows.classes[labels[i]],
                "similarity": float(similarity[i]),
            }
            for i in np.argsort(-similarity, kind="stable")[:count].tolist()
        ]
        return {"status": "ready", "rows": rows, "searched": len(self._rows)}

    def stop(self) -> None:
        """End the computation."""
        self._stopped = True

    def _compute(self) -> None:
        try:
            if self.model.folder is None:
                raise LoralabError("the model comes from the hub, without its training rows")
            rows = read_run_splits(self.model.folder).train
            if len(rows) > MAX_ROWS:
                rows = rows.take(np.linspace(0, len(rows) - 1, MAX_ROWS).astype(np.int64))
            self.total = len(rows)
            model = FeatureModel.copy_of(self.model)
            chunks = []
            for start in range(0, len(rows), CHUNK):
                if self._stopped:
                    return
                chunks.append(_unit(model.compute(rows.texts[start : start + CHUNK]).features))
                self.done = min(start + CHUNK, len(rows))
            self._rows, self._feature_model, self._features = rows, model, np.concatenate(chunks)
        except LoralabError as error:
            self.problem = str(error)
        except Exception as error:  # the page would wait forever
            _log.exception("neighbours of %s", self.model.name)
            self.problem = f"{type(error).__name__}: {error}"


class NeighbourIndex:
    """The neighbours of every model that was asked for. A model that is loaded again gets new ones."""

    def __init__(self) -> None:
        self._known: dict[str, Neighbours] = {}
        self._lock = threading.Lock()

    def of(self, model: ServedModel) -> Neighbours:
        """Return a model's neighbours, and start to compute them when they are first wanted."""
        with self._lock:
            known = self._known.get(model.name)
            if known is None or known.model is not model:
                if known is not None:
                    known.stop()
                known = self._known[model.name] = Neighbours(model)
            return known

    def close(self) -> None:
        """End all computations."""
        for neighbours in self._known.values():
            neighbours.stop()


def _unit(features: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    lengths = np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    units: npt.NDArray[np.float32] = (features / lengths).astype(np.float32)
    return units
