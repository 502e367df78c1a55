"""The HTTP application: routes, their formats, and what becomes of errors."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from loralab.errors import LoralabError, RunFailed
from loralab.serve.api_page import render_api_page
from loralab.serve.engine import QueueFull
from loralab.serve.limits import Handler, Limits, Log
from loralab.serve.model_info import model_card, model_info
from loralab.serve.models import Classified, ServedModel, UnknownModel
from loralab.serve.page.routes import page_routes
from loralab.serve.schemas import (
    ClassifyRequest,
    ClassifyResponse,
    ErrorResponse,
    FeedbackRequest,
    LoadRequest,
    ModelCard,
    ModelList,
    PredictError,
    PredictRequest,
    PredictResponse,
)
from loralab.serve.service import Forbidden, Service, TooLarge
from loralab.serve.settings import ServerSettings

ModelName = Annotated[str | None, Query(description="A name from /v1/models. Default: the first model.")]
VERSION = metadata.version("loralab")
ERROR_TYPES = {404: "not_found", 413: "too_large", 422: "invalid_request", 429: "overloaded", 503: "unavailable", 504: "timeout"}
PREDICT_TYPES = {413: "validation", 422: "validation", 429: "overloaded", 404: "validation", 503: "unhealthy", 504: "backend"}
API_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
COMMON_ERRORS = (401, 403, 408, 413, 415, 422, 429, 503, 504)


def create_app(settings: ServerSettings, service: Service | None = None) -> Limits:
    """Return the ASGI application of a server. It loads its models when it starts, unless `service` has them already."""
    service = service or Service(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if not service.ready:
            service.load()
        yield
        service.close()

    app = FastAPI(
        title="loralab",
        version=VERSION,
        lifespan=lifespan,
        description="Text classification by trained runs.",
        docs_url=None,  # FastAPI's own page loads its scripts from another server
        redoc_url=None,
    )
    app.state.service = service
    add_error_handlers(app, service)
    add_routes(app, service)
    app.include_router(page_routes(service))
    direct: dict[str, Handler] = {path: partial(_handled, service, handler, path) for path, handler in DIRECT.items()}
    return Limits(app, service, direct)


async def classify(service: Service, body: bytes, log: Log) -> Response:
    """Answer /v1/classify."""
    asked = ClassifyRequest.model_validate_json(body)
    model = service.models.get(asked.model)
    classified = await _classify(service, model, _texts(model, asked.input), log)
    words = None
    if asked.explain:
        if len(classified.predictions) > service.settings.max_explained:
            raise TooLarge(f"explain takes at most {service.settings.max_explained} texts per request")
        pairs = zip(classified.predictions.texts, classified.predictions.labels, strict=True)
        words = [await service.explain(model, text, label) for text, label in pairs]
    return _json(_classify_response(asked, classified, words))


async def predict(service: Service, body: bytes, log: Log) -> Response:
    """Answer /predict."""
    asked = PredictRequest.model_validate_json(body)
    model = service.models.get(None)
    single = isinstance(asked.inputs, str) or any(isinstance(text, str) for text in asked.inputs)
    inputs: Any = [asked.inputs] if single else asked.inputs
    texts = _texts(model, [text if isinstance(text, str) else text if len(text) == 2 else text[0] for text in inputs])
    if asked.truncate is False:
        _refuse_cut_texts(model, texts)
    classified = await _classify(service, model, texts, log)
    rows = classified.logits if asked.raw_scores else classified.predictions.probabilities
    answer = [_ranked(model.classes, row) for row in rows.tolist()]
    return _json(answer[0] if single else answer)


DIRECT: Mapping[str, Callable[[Service, bytes, Log], Awaitable[Response]]] = {"/v1/classify": classify, "/predict": predict}
"""Routes that need speed: their requests do not pass through FastAPI, which only documents them."""


async def _handled(
    service: Service, handler: Callable[[Service, bytes, Log], Awaitable[Response]], path: str, body: bytes, log: Log
) -> Response:
    """Run a handler, and answer its errors."""
    try:
        return await handler(service, body, log)
    except (LoralabError, QueueFull, TimeoutError, ValidationError) as error:
        return answer_error(service, error, path)


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the routes of the API."""

    @app.post("/v1/classify", **_described(ClassifyRequest, ClassifyResponse))
    async def classify_texts(request: Request) -> Response:
        """Classify texts. The format is vLLM's; `scores`, `top_k`, `threshold`, `abstain_below` and `explain` go beyond it."""
        return await classify(service, await request.body(), {})

    @app.post("/predict", **_described(PredictRequest, PredictResponse, PredictError))
    async def predict_texts(request: Request) -> Response:
        """Classify texts by the first model. The format is that of text-embeddings-inference."""
        return await predict(service, await request.body(), {})

    @app.get("/v1/models", response_model=ModelList)
    async def list_models() -> ModelList:
        """List the loaded models."""
        return ModelList(data=[model_card(model) for model in service.models.all])

    @app.post("/v1/models", response_model=ModelCard, responses=_errors((404, *COMMON_ERRORS)))
    def load_model(asked: LoadRequest) -> ModelCard:
        """Load a run of the watched folder, or load it again. The server needs --watch FOLDER and --api-keys FILE."""
        return model_card(service.load_at_request(asked.model))

    @app.delete("/v1/models/{name:path}", status_code=204, responses=_errors((404, *COMMON_ERRORS)))
    def remove_model(name: str) -> Response:
        """Remove a model. Requests that have begun are finished. The server needs --watch FOLDER and --api-keys FILE."""
        service.remove_at_request(name)
        return Response(status_code=204)

    @app.get("/info", responses=_errors((404,)))
    async def info(model: ModelName = None) -> dict[str, Any]:
        """Describe a model: encoder, classes, accuracy with its interval, temperature, data contract; and the server's limits."""
        return {"version": VERSION, **model_info(service.models.get(model)), "limits": service.limits()}

    @app.post("/feedback", status_code=201, responses=_errors((404, 507, *COMMON_ERRORS)))
    async def feedback(asked: FeedbackRequest) -> dict[str, Any]:
        """Append a text with its right label to the feedback file, a CSV that `loralab train` reads."""
        classified = await service.classify(service.models.get(asked.model), [asked.text])
        service.take_feedback(classified, asked.text, asked.label, datetime.now(UTC).isoformat(timespec="seconds"))
        return {"predicted": classified.predictions.labels[0], "label": asked.label}

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Answer as long as the process lives."""
        return {"status": "alive"}

    @app.get("/ready", responses={503: {"model": ErrorResponse, "description": "Models are loading, or the server ends."}})
    async def ready() -> Response:
        """Answer 200 when models are loaded and warmed up."""
        return _json({"status": "ready"}) if service.ready else error_response(503, "models are being loaded")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(render_api_page(app.openapi()), headers={"Content-Security-Policy": API_PAGE_POLICY})

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def metrics() -> Response:
        """Return all metrics in Prometheus' text format."""
        return Response(service.monitor.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _classify(service: Service, model: ServedModel, texts: Sequence[str], log: Log) -> Classified:
    """Classify, and note for the log what was asked."""
    log |= {"model": model.name, "rows": len(texts), **({"texts": [*texts]} if service.settings.log_texts else {})}
    classified = await service.classify(model, texts)
    log["tokens"] = classified.tokens
    return classified


def _texts(model: ServedModel, inputs: Any) -> list[str]:
    """Return the texts of a request: pairs are joined as the columns of the training file were. Raises LoralabError for others."""
    items = [inputs] if isinstance(inputs, str) else inputs
    if any(not isinstance(item, str) for item in items) and model.text_columns != 2:
        columns = "one text column" if model.text_columns < 2 else f"{model.text_columns} text columns"
        raise LoralabError(f"model {model.name!r} was trained on {columns} and takes no text pairs: send one text each")
    return [item if isinstance(item, str) else " ".join(filter(None, item)) for item in items]


def _refuse_cut_texts(model: ServedModel, texts: Sequence[str]) -> None:
    cut = [i for i, length in enumerate(model.full_lengths(texts)) if length > model.max_length]
    if cut:
        raise LoralabError(f"text {cut[0]} has more than {model.max_length} tokens, and truncate is false: shorten it")


def _classify_response(asked: ClassifyRequest, classified: Classified, words: Sequence[Any] | None) -> dict[str, Any]:
    model, predictions = classified.model, classified.predictions
    data = []
    for i, (label, row) in enumerate(zip(predictions.labels, predictions.probabilities.tolist(), strict=True)):
        entry: dict[str, Any] = {
            "index": i,
            "label": label if asked.abstain_below is None or max(row) >= asked.abstain_below else None,
            "probs": row,
            "num_classes": len(row),
            "scores": dict(zip(model.classes, row, strict=True)),
        }
        if asked.top_k is not None:
            entry["top"] = _ranked(model.classes, row)[: asked.top_k]
        if asked.threshold is not None:
            entry["above_threshold"] = [score for score in _ranked(model.classes, row) if score["score"] >= asked.threshold]
        if words is not None:
            entry["words"] = words[i]
        data.append(entry)
    return {
        "id": f"classify-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": model.name,
        "data": data,
        "usage": {"prompt_tokens": classified.tokens, "total_tokens": classified.tokens, "completion_tokens": 0},
    }


def _ranked(classes: Sequence[str], row: Sequence[float]) -> list[dict[str, Any]]:
    order = np.argsort(-np.asarray(row), kind="stable")
    return [{"score": row[i], "label": classes[i]} for i in order.tolist()]


def add_error_handlers(app: FastAPI, service: Service) -> None:
    """Answer the errors of the package with their status, and in the format that the route's clients expect."""

    async def answer(request: Request, error: Exception) -> Response:
        return answer_error(service, error, request.url.path)

    for kind in (LoralabError, QueueFull, TimeoutError, ValidationError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer)


def answer_error(service: Service, error: Exception, path: str) -> Response:
    """Return the response to an error."""
    if isinstance(error, QueueFull):
        seconds = max(1, round(service.engine.wait_seconds))
        return error_response(429, f"too many texts wait: try again in {seconds} s", path, {"Retry-After": str(seconds)})
    if isinstance(error, TimeoutError):
        return error_response(504, f"no answer within {service.settings.timeout:g} seconds", path)
    if isinstance(error, HTTPException):
        status = 422 if error.status_code == 400 else error.status_code  # FastAPI's 400 is a body that is no JSON
        return error_response(status, str(error.detail), path, error.headers)
    if isinstance(error, (ValidationError, RequestValidationError)):
        return error_response(422, _first_problem(error.errors()), path)
    return error_response(status_of(error), str(error), path)


def status_of(error: Exception) -> int:
    """Return the HTTP status of an error."""
    known = {UnknownModel: 404, TooLarge: 413, Forbidden: 403, RunFailed: 507}
    return next((status for kind, status in known.items() if isinstance(error, kind)), 422)


def error_response(status: int, message: str, path: str = "", headers: Mapping[str, str] | None = None) -> Response:
    """Return an error in OpenAI's format, or for /predict in that of text-embeddings-inference."""
    if path == "/predict":
        content: dict[str, Any] = {"error": message, "error_type": PREDICT_TYPES.get(status, "backend")}
    else:
        content = {"error": {"message": message, "type": ERROR_TYPES.get(status, "error"), "code": status, "param": None}}
    return JSONResponse(content, status, dict(headers or {}))


def _first_problem(errors: Sequence[Any]) -> str:
    first = next((error for error in errors if error["type"] != "string_type"), errors[0])  # a list may also be a text
    place = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("list[", "str", "constrained")))
    return f"{place}: {first['msg']}" if place else str(first["msg"])


def _json(content: Any) -> Response:
    return Response(to_json(content), media_type="application/json")


def _errors(statuses: Sequence[int], model: Any = ErrorResponse) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": model} for status in sorted({*statuses})}


def _described(request: type[BaseModel], response: Any, error: Any = ErrorResponse) -> dict[str, Any]:
    """Return the OpenAPI description of a route that parses its body itself."""
    schema = request.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    responses = {200: {"model": response}, **_errors((404, *COMMON_ERRORS), error)}
    for status in (401, 403, 408, 415):  # of the middleware, which knows no formats
        responses[status] = {"model": ErrorResponse}
    return {"openapi_extra": {"requestBody": body}, "responses": responses, "response_class": JSONResponse}
