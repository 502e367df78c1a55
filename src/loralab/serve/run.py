"""Start a server in this process."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import threading
import time
import webbrowser
from contextlib import suppress

import uvicorn

from loralab.errors import LoralabError, RunFailed
from loralab.serve.app import create_app
from loralab.serve.connections import limited_protocol
from loralab.serve.service import Service
from loralab.serve.settings import ServerSettings


def run_server(settings: ServerSettings, *, quiet: bool = False, browser: bool = False) -> None:
    """Load the models, listen, and serve until a signal ends the process. Accepted requests are finished.

    browser: open the page in the user's browser.
    Raises LoralabError for a run that cannot be loaded and for an address that cannot be used.
    """
    listener = _listen(settings)  # before the models are loaded, which takes longer
    start = time.perf_counter()
    _set_up_logging(quiet)
    service = Service(settings)
    app = create_app(settings, service)
    service.load()
    _allow_sockets(settings.max_connections)
    config = uvicorn.Config(
        app,
        http=limited_protocol(settings.max_connections),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_keep_alive=30,
        timeout_graceful_shutdown=round(settings.timeout) + 1,
    )
    host, port = listener.getsockname()[:2]
    print(_ready_line(service, host, port, time.perf_counter() - start), flush=True)
    if browser:  # some browsers keep their caller waiting
        threading.Thread(target=webbrowser.open, args=(_address(host, port),), daemon=True).start()
    with suppress(KeyboardInterrupt):  # uvicorn has shut down by then
        uvicorn.Server(config).run(sockets=[listener])


def _ready_line(service: Service, host: str, port: int, seconds: float) -> str:
    if not len(service.models):
        return f"serving {_address(host, port)}  no model yet"
    models = "; ".join(f"{model.name} ({', '.join(model.classes)})" for model in service.models.all)
    return f"serving {_address(host, port)}  {models}  warmed up in {seconds:.1f} s"


def _address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def free_port(host: str, ports: range) -> int:
    """Return the first port that nobody listens on; 0, any free one, if there is none."""
    for port in ports:
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                candidate.bind((host, port))
                return port
    return 0


def _listen(settings: ServerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        address = f"{settings.host}:{settings.port}"
        raise RunFailed(f"cannot listen on {address}: {error.strerror or error}; choose another --port or --host") from error
    listener.setblocking(False)
    return listener


def _allow_sockets(connections: int) -> None:
    """Raise the limit of open files to what the connections need. Raises LoralabError where the system forbids it."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + 512  # for connections that are about to be refused, and files
    if soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise LoralabError(f"--max-connections {connections}: this system allows {hard} open files: use at most {hard - 512}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _set_up_logging(quiet: bool) -> None:
    """Write one JSON line per request, and warnings, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("loralab")
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False
    logging.getLogger("uvicorn.error").addFilter(_is_no_cancellation)


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    """Whether a record is anything but a traceback, by uvicorn or as Starlette's text, of what a second Ctrl-C cancels."""
    cancelled = record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not cancelled and not record.getMessage().rstrip().endswith("CancelledError")
