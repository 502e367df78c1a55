"""Check data from Python before training on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loralab.api.arguments import Settings, configure, in_python, python_words
from loralab.config import Config
from loralab.errors import LoralabError, import_optional
from loralab.results import Page
from loralab.tables import html_table, to_frame

if TYPE_CHECKING:
    import pandas

    from loralab.data.data_report import DataReport


@in_python
def check_data(data: object, settings: Settings = (), *, recipe: str | Config | None = None) -> DataCheck:
    """Return what training would decide about data, or refuse. Changes nothing.

    Parameters
    ----------
    data : path or data in memory
        As in `train`.
    settings : mapping or sequence of str
        The settings of the training.
    recipe : str or Config, default "quickstart"
        The recipe of the training.

    Returns
    -------
    DataCheck
        The report of each part, as text, table, frame and page; `refused` says whether training would stop.
    """
    from loralab.data.check import check_source

    config, rows, origin = configure(data, settings, recipe)
    return DataCheck(origin, tuple(check_source(config.data, config.model, rows=rows)))


@in_python
def augment(
    texts: Sequence[str],
    techniques: Sequence[str] = ("swap", "deletion"),
    *,
    strength: float = 0.1,
    back_translation: Sequence[str] = (),
    seed: int = 42,
) -> dict[str, list[str]]:
    """Rewrite texts by augmentation techniques, as `data.augment` does with training rows.

    Parameters
    ----------
    texts : sequence of str
        Texts, each rewritten independently of the others.
    techniques : sequence of {"synonym", "insertion", "deletion", "swap", "back_translation"}
        synonym and insertion need WordNet, back_translation two translation models.
    strength : float, default 0.1
        Fraction of a text's words that is changed.
    back_translation : sequence of str
        Two Marian checkpoints, forward and back; default: English and French.
    seed : int, default 42
        Seed of the changes.

    Returns
    -------
    dict of list of str
        The rewritten texts by technique; a text that a technique cannot change stays as it is.

    """
    from loralab.data.augment import check_techniques
    from loralab.training.setup import load_rewrites

    if isinstance(texts, str):
        raise LoralabError("texts is one text, not a sequence of texts: write [text]")
    check_techniques(techniques)
    rewrites = load_rewrites(techniques, strength, back_translation)
    return {name: [*rewrite(texts, f"{seed}/0/{name}/0")] for name, rewrite in rewrites.items()}


@in_python
def load_sample() -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """Return the training and test rows of the built-in sample as data frames: 800 and 400 news briefs in four classes.

    Columns: title, description, label, and border, another class that the brief could be mistaken for. The texts are CC0.
    """
    from loralab.data.folders import find_parts

    frames = import_optional("pandas", "notebook")
    parts = find_parts("sample")
    train, test = (frames.read_csv(files[0], keep_default_na=False) for files in (parts.train, parts.test))
    return train, test


@dataclass(frozen=True, repr=False)
class DataCheck:
    """Reports on the training, validation and test rows. source: what was checked."""

    source: str
    reports: tuple[DataReport, ...]

    @property
    def refused(self) -> bool:
        """Whether training would refuse the data."""
        return any(report.refused for report in self.reports)

    def to_frame(self) -> pandas.DataFrame:
        """Return one row per decision and problem: part, severity, message, rows, and what fixes it."""
        return to_frame(("part", "severity", "message", "rows", "fix"), self._rows())

    def report(self, path: str | Path = "data-report.html") -> Page:
        """Write the page with figures and examples, and return it."""
        from loralab.report.data_page import write_data_page

        write_data_page(Path(path), self.source, self.reports)
        return Page(Path(path))

    def _rows(self) -> list[tuple[Any, ...]]:
        own = [(report.part, notice) for report in self.reports for notice in (*report.findings, *report.notices)]
        return [(part, notice.severity, notice.message, [*notice.rows], notice.fix) for part, notice in own]

    def __repr__(self) -> str:
        from loralab.cli.data_display import show_data_report
        from loralab.cli.display import console

        with console.capture() as captured:
            show_data_report(self.reports)
        return python_words(captured.get().rstrip())

    def _repr_html_(self) -> str:
        counts = [(report.part, report.rows, str(report.columns), ", ".join(report.classes)) for report in self.reports]
        rows = [
            (part, severity, f"{message}{f'; {fix}' if fix else ''}", len(rows))
            for part, severity, message, rows, fix in self._rows()
        ]
        return html_table(("part", "rows", "columns", "classes"), counts) + html_table(
            ("part", "severity", "finding", "rows"), rows
        )
