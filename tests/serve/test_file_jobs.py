"""Files that users send: which are taken, how they are read, classified, and deleted."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import topics

from loralab.errors import LoralabError
from loralab.serve.page import file_jobs, uploads
from loralab.serve.page.file_jobs import FileJob, FileJobs
from loralab.serve.page.uploads import Uploads
from loralab.serve.service import Service
from loralab.serve.settings import ServerSettings

ROWS = topics(20, seed=7)


@pytest.fixture(scope="module")
def service(served_runs: Path) -> Iterator[Service]:
    service = Service(ServerSettings(runs={"news": str(served_runs / "news")}, workers=1, max_queue=4))
    service.load()
    yield service
    service.close()


@pytest.fixture
def kept() -> Iterator[Uploads]:
    kept = Uploads(ServerSettings())
    yield kept
    kept.close()


def table(*rows: tuple[object, ...]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


CONTENT = table(("id", "text", "price"), *((f"x{i}", text, "=1+1" if i == 2 else i) for i, (text, _) in enumerate(ROWS)))


def classify(
    service: Service, kept: Uploads, content: bytes, abstain_below: float = 0.0, text: tuple[str, ...] = ("text",)
) -> FileJob:
    async def run() -> FileJob:
        jobs = FileJobs(service.engine)
        job = jobs.start(kept.add(content, ".csv"), [*text], service.models.get(), abstain_below)
        assert job.task is not None
        await job.task
        if job.finished:
            with job.result.open(encoding="utf-8", newline="") as file:
                job.rows = [*csv.DictReader(file)]  # type: ignore[attr-defined]
        jobs.close()
        assert not job.result.exists()
        return job

    return asyncio.run(run())


def test_a_file_is_classified_like_offline(service: Service, kept: Uploads) -> None:
    job: Any = classify(service, kept, CONTENT)
    predictions = service.models.get().classifier.predict([text for text, _ in ROWS])
    assert [row["predicted"] for row in job.rows] == predictions.labels
    for row, probabilities in zip(job.rows, predictions.probabilities.tolist(), strict=True):
        assert [float(row[f"p({name})"]) for name in predictions.classes] == pytest.approx(probabilities, abs=1e-3)
    assert [row["id"] for row in job.rows] == [f"x{i}" for i in range(len(ROWS))]
    assert job.rows[2]["price"] == "'=1+1"
    state = job.state()
    assert state["status"] == "finished"
    assert state["done"] == state["total"] == len(ROWS)
    assert sum(state["labels"].values()) == len(ROWS)
    assert "spreadsheet formula" in state["notices"][0]


def test_undecided_rows_come_first_without_a_label(service: Service, kept: Uploads) -> None:
    confidence = sorted(service.models.get().classifier.predict([text for text, _ in ROWS]).confidence.tolist())
    job: Any = classify(service, kept, CONTENT, abstain_below=confidence[30] + 1e-4)
    decided = [bool(row["predicted"]) for row in job.rows]
    assert decided == sorted(decided)
    assert job.abstained == decided.count(False) > 20
    assert {row["id"] for row in job.rows} == {f"x{i}" for i in range(len(ROWS))}


def test_a_file_without_rows_for_a_chunk(service: Service, kept: Uploads) -> None:
    job: Any = classify(service, kept, table(("text",), ("one row of text",)))
    assert len(job.rows) == 1


def test_jobs_and_files_are_limited(service: Service, kept: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_jobs, "MAX_JOBS", 1)
    monkeypatch.setattr(uploads, "MAX_FILES", 2)
    first = kept.add(CONTENT, ".csv")

    async def start_two() -> None:
        jobs = FileJobs(service.engine)
        jobs.start(first, ["text"], service.models.get(), 0)
        with pytest.raises(LoralabError, match="at most 1"):
            jobs.start(first, ["text"], service.models.get(), 0)
        jobs.close()

    asyncio.run(start_two())
    kept.add(CONTENT, ".csv")
    with pytest.raises(LoralabError, match="at most 2"):
        kept.add(CONTENT, ".csv")
    monkeypatch.setattr(uploads, "SECONDS_KEPT", 0)
    kept.add(CONTENT, ".csv")
    assert kept.get(first.id) is None
    assert not first.path.exists()


def test_columns_are_detected_and_can_be_chosen(service: Service, kept: Uploads) -> None:
    upload = kept.add(table(("a", "b"), *(((text, text[::-1]) for text, _ in ROWS))), ".csv")
    preview = upload.preview()
    assert preview["columns"] == ["a", "b"]
    assert preview["text"] == []
    assert "Choose" in preview["problem"]
    assert preview["rows"] == len(ROWS)
    assert len(preview["sample"]) == uploads.SAMPLE_ROWS
    with pytest.raises(LoralabError, match="choose one or more"):
        upload.read_as(["c"])
    job: Any = classify(service, kept, upload.path.read_bytes(), text=("a", "b"))
    assert job.finished


def test_a_header_that_may_be_a_row_is_a_header(kept: Uploads) -> None:
    upload = kept.add(table(("Good morning",), ("Good night",), ("Good bye",)), ".csv")
    assert upload.columns in (("Good morning",), ("text",))


@pytest.mark.parametrize("extension", ["", ".exe", ".pkl", ".zip", ".gz", "/../../x.csv", ".csv/../x"])
def test_other_extensions_are_refused(kept: Uploads, extension: str) -> None:
    with pytest.raises(LoralabError, match=r"readable: \.csv"):
        kept.add(CONTENT, extension)


def test_packed_files_are_refused(kept: Uploads) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.csv", CONTENT)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/sheet.xml", bytes(5_000_000))
    kept.max_unpacked = 1_000_000
    for content, problem in (
        (packed.getvalue(), "archive"),
        (bomb.getvalue(), "too large"),
        (b"\x1f\x8b123", "compressed"),
        (b"PK12", "damaged"),
    ):
        with pytest.raises(LoralabError, match=problem):
            kept.add(content, ".csv")


@pytest.mark.parametrize("content", [b"", b"\n", b"text\n", b"\x00\x01\x02\xff" * 20])
def test_what_cannot_be_read_is_refused_without_a_path(kept: Uploads, content: bytes) -> None:
    with pytest.raises(LoralabError) as error:
        kept.add(content, ".csv")
    assert str(kept._folder.path) not in str(error.value)
    assert not [*kept._folder.path.iterdir()]


def test_json_lines_are_read(service: Service, kept: Uploads) -> None:
    lines = "\n".join(json.dumps({"text": text}) for text, _ in ROWS).encode()
    assert kept.add(lines, ".jsonl").preview()["text"] == ["text"]
