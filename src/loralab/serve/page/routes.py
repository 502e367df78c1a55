"""The page at / and the JSON that it works with. The logic is in the modules that this one imports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from loralab.inference.prediction_files import read_input
from loralab.report.rendering import template_environment
from loralab.serve.limits import LOOPBACK
from loralab.serve.model_info import model_info
from loralab.serve.page.file_jobs import FileJobs
from loralab.serve.page.labelling import STRATEGY_NAMES, Session, Sessions, SessionSettings
from loralab.serve.page.neighbours import NeighbourIndex
from loralab.serve.page.run_listing import RunListing, compare_runs, rows_to_check
from loralab.serve.page.training_jobs import TrainingJob
from loralab.serve.page.uploads import EXTENSIONS, Upload, Uploads
from loralab.serve.service import Forbidden, Service

T = TypeVar("T")
FILES = Path(__file__).parent / "static"
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
REPORT_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; frame-ancestors 'none'"


class NeighbourQuery(BaseModel):
    """A text whose nearest training rows are wanted."""

    text: str
    model: str
    count: Annotated[int, Field(ge=1, le=50)] = 5


class JobRequest(BaseModel):
    """A file to classify."""

    file: str
    text: list[str]
    model: str
    abstain_below: Annotated[float, Field(ge=0, le=1)] = 0.0


class SessionRequest(BaseModel):
    """A file to label. name: what the browser calls the file, only to be shown."""

    file: str
    text: list[str]
    name: Annotated[str, Field(max_length=300)]
    classes: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=200)]
    strategy: str
    model: str = ""


class RowRequest(BaseModel):
    """A row that is labelled, or skipped if there is no label."""

    row: int
    label: str | None = None


class RunRequest(BaseModel):
    """A run of the list."""

    run: str


class Page:
    """What the page's users have on the server: files, jobs, labelling sessions, training runs."""

    def __init__(self, service: Service) -> None:
        settings = service.settings
        self.service = service
        self.neighbours = NeighbourIndex()
        self.uploads = Uploads(settings)
        self.jobs = FileJobs(service.engine)
        self.sessions = Sessions(settings.labels, service.models)
        self.listing = RunListing(settings.folder)
        self.runs_folder = settings.folder or Path("runs")
        self.trainings: dict[str, TrainingJob] = {}
        """The latest training run of each session, by the session's name."""

    def close(self) -> None:
        """End everything that runs, and delete the files of users."""
        self.neighbours.close()
        self.jobs.close()
        self.uploads.close()
        self.sessions.close()
        for training in self.trainings.values():
            training.stop()

    @property
    def open_to_strangers(self) -> bool:
        """Whether anybody on the network may use the server without a key."""
        return self.service.settings.keys is None and self.service.settings.host not in (*LOOPBACK, "::1")

    def check_owner(self) -> None:
        """Raise Forbidden for what shows the owner's texts, writes files or starts programs, where strangers might."""
        if self.open_to_strangers:
            raise Forbidden("anybody on the network can reach this server, so this needs API keys: start it with --api-keys")

    def run_paths(self) -> dict[str, Path]:
        """Return the runs and experiments that clients may name."""
        served = {model.name: model.folder for model in self.service.models.all if model.folder is not None}
        trained = {job.name: job.folder for job in self.trainings.values()}
        return self.listing.paths({**trained, **served})

    def run_path(self, name: str) -> Path:
        """Return the folder of a run by its name."""
        return _known(self.run_paths().get(name), f"there is no run {name!r} in the list")

    def session(self, name: str) -> Session:
        """Return a labelling session by its name, started."""
        session = _known(self.sessions.get(name), f"there is no labelling session {name!r}")
        session.start()
        return session

    def session_state(self, session: Session) -> dict[str, Any]:
        """Return a session's state with that of its training run."""
        training = self.trainings.get(session.name)
        return {**session.state(), "training": training.state() if training else None}

    def train(self, session: Session) -> None:
        """Start to train a run on a session's labels, unless one is being trained."""
        current = self.trainings.get(session.name)
        if current is None or not current.running:
            prefix = f"labels-{session.name}-"
            taken = {path.name for path in self.runs_folder.glob(f"{prefix}*")}
            name = next(f"{prefix}{n}" for n in range(1, 10_000) if f"{prefix}{n}" not in taken)
            self.trainings[session.name] = TrainingJob(session.labelled.path, self.runs_folder, name, self.service.add)


def page_routes(service: Service) -> APIRouter:
    """Return the routes of the page. They are not part of the documented API."""
    page = Page(service)

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        yield
        page.close()

    router = APIRouter(include_in_schema=False, lifespan=lifespan)
    _add_files(router, page)
    _add_trying(router, page)
    _add_classifying(router, page)
    _add_labelling(router, page)
    _add_runs(router, page)
    return router


def _add_files(router: APIRouter, page: Page) -> None:
    """Add the page itself: fixed files, and the style sheet of the reports."""
    files = {path.name: (path.read_bytes(), MEDIA_TYPES[path.suffix]) for path in FILES.iterdir() if path.suffix in MEDIA_TYPES}
    files["report.css"] = template_environment().get_template("page.css").render().encode(), MEDIA_TYPES[".css"]

    def answer(name: str) -> Response:
        content, media_type = _known(files.get(name), "there is no such file")
        return Response(content, media_type=media_type, headers=SECURITY)

    @router.get("/")
    async def index() -> Response:
        return answer("index.html")

    @router.get("/page/{name}")
    async def file(name: str) -> Response:
        return answer(name)

    @router.get("/page/reports/{link}")
    def report(link: str) -> Response:
        page.check_owner()
        path = _known(page.listing.report(link), "there is no such report: open it from the list of runs")
        return FileResponse(path, media_type="text/html", headers={**SECURITY, "Content-Security-Policy": REPORT_POLICY})


def _add_trying(router: APIRouter, page: Page) -> None:
    service = page.service

    @router.get("/api/state")
    def state() -> dict[str, Any]:
        settings = service.settings
        return {
            "version": metadata.version("loralab"),
            "models": [model_info(model) for model in service.models.all],
            "folder": None if settings.folder is None else str(settings.folder),
            "runs_folder": str(page.runs_folder),
            "labels": str(settings.labels),
            "strategies": STRATEGY_NAMES,
            "extensions": EXTENSIONS,
            "max_upload": settings.max_upload,
            "max_text": settings.max_text,
            "may_change": not page.open_to_strangers,
        }

    @router.post("/api/neighbours")
    def neighbours(query: NeighbourQuery) -> dict[str, Any]:
        page.check_owner()
        service.check_texts([query.text])
        return page.neighbours.of(service.models.get(query.model)).nearest(query.text, query.count)


def _add_classifying(router: APIRouter, page: Page) -> None:
    def upload_of(name: str) -> Upload:
        return _known(page.uploads.get(name), "the server no longer has this file: choose it again")

    def contract(model: str | None) -> Any:
        return page.service.models.get(model).classifier.manifest.data if model else None

    @router.post("/api/files")
    async def upload(request: Request, type: str, model: str | None = None) -> dict[str, Any]:
        content, run = await request.body(), contract(model)
        return await asyncio.to_thread(lambda: page.uploads.add(content, type.lower()).preview(run))

    @router.get("/api/files/{name}")
    def preview(name: str, model: str | None = None) -> dict[str, Any]:
        return upload_of(name).preview(contract(model))

    @router.delete("/api/files/{name}", status_code=204)
    def remove_file(name: str) -> Response:
        page.uploads.remove(name)
        return Response(status_code=204)

    @router.post("/api/jobs")
    async def start_job(wanted: JobRequest) -> dict[str, Any]:
        model = page.service.models.get(wanted.model)
        return page.jobs.start(upload_of(wanted.file), wanted.text, model, wanted.abstain_below).state()

    @router.get("/api/jobs/{name}")
    async def job_state(name: str) -> dict[str, Any]:
        return _known(page.jobs.get(name), "the server no longer has this job").state()

    @router.get("/api/jobs/{name}/result")
    async def job_result(name: str) -> Response:
        job = _known(page.jobs.get(name), "the server no longer has this job")
        _known(job.finished or None, "the job is not finished")
        return FileResponse(job.result, media_type="text/csv", filename="classified.csv", headers=SECURITY)

    @router.delete("/api/jobs/{name}", status_code=204)
    async def remove_job(name: str) -> Response:
        page.jobs.remove(name)
        return Response(status_code=204)

    @router.post("/api/labelling")
    def start_session(wanted: SessionRequest) -> dict[str, Any]:
        page.check_owner()
        upload = upload_of(wanted.file)
        settings = SessionSettings(wanted.name, tuple(name.strip() for name in wanted.classes), wanted.strategy, wanted.model)
        source = read_input(upload.path, upload.read_as(wanted.text))
        session = page.sessions.create(settings, [text for rows in source.rows for text in rows.texts])
        page.uploads.remove(upload.id)  # the session has its own copy of the texts
        return page.session_state(page.session(session.name))


def _add_labelling(router: APIRouter, page: Page) -> None:
    @router.get("/api/labelling")
    def sessions() -> dict[str, Any]:
        page.check_owner()
        return {"folder": str(page.sessions.folder), "sessions": page.sessions.summaries()}

    @router.get("/api/labelling/{name}")
    def session_state(name: str) -> dict[str, Any]:
        page.check_owner()
        return page.session_state(page.session(name))

    @router.post("/api/labelling/{name}/rows")
    def label(name: str, wanted: RowRequest) -> dict[str, Any]:
        page.check_owner()
        session = page.session(name)
        if wanted.label is None:
            session.skip(wanted.row)
        else:
            session.label(wanted.row, wanted.label)
        return page.session_state(session)

    @router.post("/api/labelling/{name}/undo")
    def undo(name: str) -> dict[str, Any]:
        page.check_owner()
        session = page.session(name)
        session.undo()
        return page.session_state(session)

    @router.post("/api/labelling/{name}/train")
    def train(name: str) -> dict[str, Any]:
        page.check_owner()
        session = page.session(name)
        page.train(session)
        return page.session_state(session)

    @router.post("/api/labelling/{name}/stop")
    def stop(name: str) -> dict[str, Any]:
        page.check_owner()
        session = page.session(name)
        if training := page.trainings.get(name):
            training.stop()
        return page.session_state(session)


def _add_runs(router: APIRouter, page: Page) -> None:
    @router.get("/api/runs")
    def runs() -> dict[str, Any]:
        loaded = {str(model.folder.resolve()) for model in page.service.models.all if model.folder is not None}
        paths = page.run_paths()
        lines = page.listing.rows(paths)
        return {"runs": [{**line, "loaded": str(paths[line["name"]].resolve()) in loaded} for line in lines]}

    @router.post("/api/runs/load")
    def load(wanted: RunRequest) -> dict[str, Any]:
        page.check_owner()
        return {"model": page.service.add(page.run_path(wanted.run), wanted.run).name}

    @router.get("/api/rows")
    def rows(run: str) -> dict[str, Any]:
        page.check_owner()
        return rows_to_check(page.run_path(run))

    @router.get("/api/comparison")
    def comparison(first: str, second: str) -> dict[str, Any]:
        page.check_owner()
        return compare_runs(page.run_path(first), page.run_path(second))


def _known(value: T | None, message: str) -> T:
    """Return a value that was looked up. Raises HTTPException 404 for None."""
    if value is None:
        raise HTTPException(404, message)
    return value
