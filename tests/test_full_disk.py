"""A disk that becomes full or read-only during a run: a one-line error, an exit code, saved files unaffected, and --resume.

The tests mount and fill a small tmpfs. Without permission to mount they set the maximum file size to zero instead.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import write_csv

from loralab import Classifier, LoralabError, load_config, pipeline
from loralab.cli import main as cli_main
from loralab.cli.main import main
from loralab.config import Config
from loralab.errors import RunFailed
from loralab.pipeline import run_training
from loralab.storage import run_folder
from loralab.training.checkpoint import Checkpoint

# 44 steps, with checkpoints at 20, 40 and 44. The last page of the log has room for one more line, not for twenty.
SETTINGS = [
    "train.epochs=4",
    "train.eval_steps=20",
    "train.batch_size=8",
    "train.threads=1",
    "lora.dropout=0.2",
    "data.max_length=32",
]
MOMENTS = {
    "settings": (run_folder, "create", 1, ""),
    "log": (run_folder.RunFolder, "log", 22, "log.jsonl"),
    "checkpoint": (run_folder.RunFolder, "save_checkpoint", 2, "checkpoint.safetensors"),
    "bundle": (pipeline, "save_bundle", 1, "model"),
    "predictions": (run_folder.RunFolder, "write_predictions", 1, "predictions.csv"),
    "scores": (run_folder.RunFolder, "write_scores", 1, "scores.json"),
}
"""By moment: owner and name of a function, the number of its call, and the file that cannot be written."""
REASONS = {"fill": "No space left on device", "read_only": "Read-only file system", "no_size": "File too large"}
HAPPENINGS = [(moment, action) for action in ("fill", "read_only") for moment in MOMENTS]
HAPPENINGS += [(moment, "no_size") for moment in ("log", "checkpoint", "bundle")]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True)
    if not done or done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip() if done else 'there is no mount'}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)


def no_size(disk: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def free(disk: Path) -> None:
    """Undo fill, read_only and no_size."""
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    if disk.is_mount():
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    (disk / "filler").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def config(tiny: Path, topics_csv: Path) -> Config:
    return load_config("quickstart", [f"model.base={tiny}", f"data.source={topics_csv}", *SETTINGS])


@pytest.fixture(scope="module")
def whole(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run."""
    return run_training(config, name="whole", folder=tmp_path_factory.mktemp("runs")).folder


def adapter(run: Path) -> bytes:
    return (run / "model" / "adapter_model.safetensors").read_bytes()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def before_call(patch: pytest.MonkeyPatch, owner: Any, name: str, number: int, happen: Callable[[], None]) -> None:
    """Call `happen` just before the `number`-th call of a function."""
    function, calls = getattr(owner, name), itertools.count(1)

    def hooked(*arguments: Any, **named: Any) -> Any:
        if next(calls) == number:
            happen()
        return function(*arguments, **named)

    patch.setattr(owner, name, hooked)


def command(config: Config, folder: Path) -> list[str]:
    settings = folder.parent / "settings.yaml"
    settings.write_text(config.to_yaml())
    return ["loralab", "train", str(settings), "--runs", str(folder), "--name", "cut"]


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "action"), HAPPENINGS)
def test_a_run_survives_its_disk(
    config: Config,
    whole: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    moment: str,
    action: str,
) -> None:
    folder = tmp_path / "disk" if action == "no_size" else request.getfixturevalue("disk")
    shutil.copytree(whole, folder / "other")
    owner, name, number, file = MOMENTS[moment]
    run = folder / "cut"
    monkeypatch.setattr(sys, "argv", command(config, folder))
    capsys.readouterr()
    with monkeypatch.context() as patch:
        before_call(patch, owner, name, number, lambda: globals()[action](folder))
        try:
            with pytest.raises(SystemExit) as end:
                main()
            assert folder.is_mount() == (action != "no_size")
        finally:
            free(folder)

    before_anything = (moment, action) == ("settings", "read_only")
    assert end.value.code == (2 if before_anything else 1)
    (line,) = capsys.readouterr().err.splitlines()
    message = f"{folder} is not writable" if before_anything else f"cannot write {run / file}: "
    assert line.startswith(f"loralab: {message}")
    assert before_anything or REASONS[action] in line
    assert contents(folder / "other") == contents(whole)
    assert not (run / "scores.json").exists()

    if moment == "settings":
        assert not run.exists()
    else:
        kept = {"log": 20, "checkpoint": 20}.get(moment, 44)
        assert Checkpoint.load(run / "checkpoint.safetensors").step == kept
        assert [event["step"] for event in run_folder.read_log(run) if event["event"] == "EvalEnd"][: kept // 20] == [20, 40][
            : kept // 20
        ]
        if moment in ("predictions", "scores"):
            assert adapter(run) == adapter(whole)
    run_folder.check_available(run, overwrite=True)  # --overwrite accepts everything that is left
    run_training(config, name="cut", folder=folder, resume=moment != "settings")
    assert adapter(run) == adapter(whole)
    assert {path.name for path in run.iterdir() if not path.name.startswith(".")} == {path.name for path in whole.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("room", [0, 4, 90])
def test_a_run_on_a_nearly_full_disk_ends_in_one_line(config: Config, whole: Path, disk: Path, room: int) -> None:
    """The run, in its own process, fills the last `room` pages of the disk; so does --resume."""
    fill(disk)
    with (disk / "filler").open("r+b") as file:
        file.truncate((disk / "filler").stat().st_size - room * 4096)
    for more in ([], ["--resume"]) if room else ([],):
        arguments = [sys.executable, "-m", *command(config, disk), *more]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"loralab: cannot write {disk / 'cut'}")
        assert "No space left on device" in line
    free(disk)
    run_training(config, name="cut", folder=disk, resume=room > 0)
    assert adapter(disk / "cut") == adapter(whole)


@pytest.mark.parametrize("make", [fill, read_only])
def test_predictions_that_do_not_fit_leave_the_old_file(whole: Path, disk: Path, make: Callable[[Path], None]) -> None:
    rows = write_csv(disk.parent / "rows.csv", [("a merger of banks", "")] * 500, header=("text", "x"))
    out = disk / "out.csv"
    out.write_text("the old ones")
    classifier = Classifier.load(whole)
    make(disk)
    with pytest.raises(RunFailed, match=rf"cannot write {out}: .*; previously saved files are unaffected"):
        classifier.predict_file(rows, out)
    free(disk)
    assert [path.name for path in disk.iterdir() if not path.name.startswith(".")] == ["out.csv"]
    assert out.read_text() == "the old ones"
    assert classifier.predict_file(rows, out).rows == 500


def test_a_full_disk_refuses_to_overwrite_a_run_it_could_not_replace(config: Config, whole: Path, disk: Path) -> None:
    shutil.copytree(whole, disk / "cut")
    fill(disk)
    with pytest.raises(RunFailed, match=rf"cannot write {disk / 'cut'}: No space left on device"):
        run_training(config, name="cut", folder=disk, overwrite=True)
    assert contents(disk / "cut") == contents(whole)


def test_temporary_files_of_a_killed_run_can_be_overwritten(tmp_path: Path) -> None:
    run = run_folder.create(tmp_path / "a", Config(), {}, overwrite=False)
    for name in (".tmpyvcykj", ".checkpoint.safetensors.new", ".scores.json.ab12"):  # the first is safetensors' own
        (run.folder / name).write_text("half")
    run_folder.check_available(run.folder, overwrite=True)
    (run.folder / ".tmp-mine").write_text("years of work")
    with pytest.raises(LoralabError, match="is not a run"):
        run_folder.check_available(run.folder, overwrite=True)


def test_a_run_appears_with_all_its_settings_or_not_at_all(tmp_path: Path) -> None:
    """A run folder without environment.json could be neither resumed nor started."""
    with pytest.raises(TypeError):
        run_folder.create(tmp_path / "a", Config(), {"device": object()}, overwrite=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EFBIG, errno.EIO])
def test_a_write_that_does_not_know_its_file_is_refused_in_one_message(
    code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As those of Optuna's journal."""

    def write() -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(cli_main, "app", write)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    assert capsys.readouterr().err == f"loralab: the disk refused to write: {os.strerror(code)}\n"


def test_other_errors_of_the_system_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_main, "app", lambda: os.close(-1))
    with pytest.raises(OSError, match="Bad file descriptor"):
        main()
