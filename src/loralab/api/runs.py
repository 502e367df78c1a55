"""One run from Python: train, load, evaluate, diagnose, export, average."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loralab.api.arguments import Settings, configure, data_settings, in_python, is_shown, run_path, table_place
from loralab.config import Config
from loralab.config.loading import default_name
from loralab.results import Experiment, Run, Scores

if TYPE_CHECKING:
    from loralab.diagnostics.diagnose import Diagnosis
    from loralab.inference.classifier import Backend, Classifier
    from loralab.inference.export import Export
    from loralab.inference.model_soup import Soup
    from loralab.training.callbacks import Callback


@in_python
def train(  # noqa: PLR0913 - one parameter per option of the command
    data: object = "quickstart",
    settings: Settings = (),
    *,
    recipe: str | Config | None = None,
    name: str | None = None,
    runs: str | Path = "runs",
    resume: bool = False,
    overwrite: bool = False,
    keep_data: bool = True,
    callbacks: Sequence[Callback] = (),
    verbose: bool | None = None,
) -> Run:
    """Fine-tune an encoder on labelled texts, test it, and return the run.

    Parameters
    ----------
    data : path, recipe, Config, or data in memory
        A data file or folder, a recipe, a settings file, a run folder, or rows in memory: a DataFrame of pandas or polars, an Arrow
        table, a `datasets.Dataset` or DatasetDict, a dict of columns, a list of dicts, (texts, labels), or a dict of these by part,
        such as {"train": frame, "test": other}. Columns are detected and printed; data.text and data.label name others.
    settings : mapping or sequence of str
        Settings by dotted name, such as {"lora.rank": 16}, or as ["lora.rank=16"]. `loralab settings` lists them.
    recipe : str or Config, default "quickstart"
        The recipe, settings file or settings to start from if `data` is a path or in memory.
    name : str, optional
        The run's name; default: made from the recipe or file, and the seed.
    runs : path, default "runs"
        The folder of all runs.
    resume, overwrite : bool, default False
        Continue an interrupted run of this name, to the same result; or replace a run of this name.
    keep_data : bool, default True
        Keep rows in memory in the run's folder, as Parquet. Otherwise diagnosing and resuming need the same rows again.
    callbacks : sequence of Callback
        Objects with `on_step_end`, `on_evaluate` or `on_train_end`; the first two stop training by returning True.
    verbose : bool, optional
        Print decisions and progress; default: in notebooks and terminals.

    Raises
    ------
    LoralabError
        For unusable data or settings, before anything is written.
    RunFailed
        If the run itself fails or is interrupted.

    """
    from loralab.pipeline import run_training
    from loralab.training.callbacks import listener_of

    config, rows, origin = configure(data, settings, recipe)
    target = name or config.name or default_name(origin, config.seed)
    config = config.model_copy(update={"name": None})
    with ExitStack() as stack:
        announce, listeners = _progress(config, verbose, stack)
        summary = run_training(
            config,
            name=target,
            folder=runs,
            overwrite=overwrite,
            resume=resume,
            announce=announce,
            listeners=[*listeners, *map(listener_of, callbacks)],
            rows=rows,
            keep_rows=keep_data,
        )
    for callback in callbacks:
        if hook := getattr(callback, "on_train_end", None):
            hook(summary.folder)
    return Run(summary.folder)


@in_python
def load(
    path: str | Path,
    *,
    revision: str | None = None,
    base: str | None = None,
    precision: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    backend: Backend = "auto",
) -> Classifier:
    """Load a trained model, which classifies texts.

    Parameters
    ----------
    path : path
        A run, a bundle, an export, a folder saved by peft, or a model on the hub, "user/name".
    revision : str, optional
        Branch, tag or commit of a model on the hub; default: main.
    base : path, optional
        The base encoder's folder, if it has moved.
    precision : {"auto", "fp32", "bf16", "fp16"}, optional
        Default: the run's, or auto where the device is slow in it.
    device : {"auto", "cpu", "cuda", "mps"}, default "auto"
        Where to compute.
    threads : int, optional
        CPU threads of predictions; default: torch's own number.
    backend : {"auto", "native", "onnx", "onnx-int8"}, default "auto"
        auto: an export as it is, a run natively.

    Raises
    ------
    LoralabError
        For a missing or damaged folder, and for another base than the run was trained on.
    """
    from loralab.inference.classifier import Classifier

    options: Any = {"revision": revision, "base": base, "precision": precision}
    return Classifier.load(path, device=device, threads=threads, backend=backend, **options)


@in_python
def evaluate(model: Run | Classifier | str | Path, data: object, settings: Settings = ()) -> Scores:
    """Score a model on labelled rows.

    Parameters
    ----------
    model : Run, Classifier or path
        A run, its folder, a loaded model, or a model on the hub.
    data : path or data in memory
        The rows, as in `train`. Columns and label values are those of the run's training rows.
    settings : mapping or sequence of str
        Settings of `data` that say otherwise how to read the rows, such as {"data.text": "title"}.

    Returns
    -------
    Scores

    Raises
    ------
    LoralabError
        For a label that is no class of the run.
    """
    classifier = _classifier(model)
    result = classifier.evaluate_file(table_place(data), data_settings(settings))
    return Scores.from_mapping(result.scores, classifier.classes, [*map(str, result.notices)])


@in_python
def diagnose(
    run: Run | str | Path, data: object = None, settings: Settings = (), *, texts: Sequence[str] = (), rows: int = 2000
) -> Diagnosis:
    """Analyse a run's errors: calibration, label errors, duplicates, drift, robustness, attributions. Its report shows them.

    Parameters
    ----------
    run : Run or path
        A complete run.
    data : path or data in memory, optional
        Rows to analyse, labelled or not; default: the run's test rows.
    settings : mapping or sequence of str
        Settings of `data` that say how to read the rows.
    texts : sequence of str
        Further texts whose words are explained.
    rows : int, default 2000
        Perturb at most so many rows in the robustness check.

    Raises
    ------
    LoralabError
        For a run that is not complete, and for training rows that changed since.
    """
    from loralab.diagnostics.diagnose import diagnose as diagnose_run
    from loralab.report.write import write_run_report

    folder = run.folder if isinstance(run, Run) else Path(run)
    file = None if data is None else table_place(data)
    diagnosis = diagnose_run(folder, file=file, data=data_settings(settings), inputs=texts, rows=rows)
    write_run_report(folder)
    return diagnosis


@in_python
def export(
    run: Run | str | Path, to: str, out: str | Path | None = None, *, overwrite: bool = False, accept: bool = False
) -> Export:
    """Export a run for other libraries, and check that they give the same logits.

    Parameters
    ----------
    run : Run or path
        A complete run.
    to : {"merged", "peft", "sentence-transformers", "onnx", "onnx-int8"}
        merged: all weights, for Transformers; peft: the adapter and the head; onnx: fp32; onnx-int8: 8-bit matrix products.
    out : path, optional
        A new folder; default: the run's exports/FORMAT.
    overwrite : bool, default False
        Replace an earlier export.
    accept : bool, default False
        Keep 8 bits even if they cost accuracy.

    Raises
    ------
    LoralabError
        For a model without such a form.
    RunFailed
        If a check fails; the export is then discarded.
    """
    from loralab.inference.export import export_run

    folder = run.folder if isinstance(run, Run) else Path(run)
    return export_run(folder, to, None if out is None else Path(out), overwrite=overwrite, accept=accept)


@in_python
def model_soup(
    runs: Sequence[Run | Experiment | str | Path], out: str | Path, *, rank: int | None = None, overwrite: bool = False
) -> Soup:
    """Average the weights of several runs into one model, as fast as one run and often slightly more accurate.

    Parameters
    ----------
    runs : sequence of Run, Experiment or path
        Runs that differ in their seeds, or an experiment with such trials.
    out : path
        A new folder for the model.
    rank : int, optional
        Rank of the averaged adapter; default: the sum of the runs' ranks, which is exact.
    overwrite : bool, default False
        Replace an earlier soup.

    Raises
    ------
    LoralabError
        For runs that differ in more than their weights.
    """
    from loralab.inference.model_soup import make_soup

    return make_soup([run_path(run) for run in runs], Path(out), rank=rank, overwrite=overwrite)


def _classifier(model: Run | Classifier | str | Path) -> Classifier:
    from loralab.inference.classifier import Classifier

    return model if isinstance(model, Classifier) else Classifier.load(run_path(model))


def _progress(config: Config, verbose: bool | None, stack: ExitStack) -> tuple[Callable[[Any], None], list[Callable[[Any], Any]]]:
    """Return what announces a run and listens to it: nothing if nothing is shown."""
    if not is_shown(verbose):
        return lambda plan: None, []
    from loralab.cli.training_display import TrainingView

    view = stack.enter_context(TrainingView(config))
    return view.announce, [view.listen]
