"""`loralab serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from loralab.cli.options import OUTPUT
from loralab.config.run_settings import RUN_SETTINGS
from loralab.errors import LoralabError, import_optional, suggest


def _option(help_text: str, *names: str, **options: Any) -> Any:
    """Return an option that the environment can set too: --max-rows is LORALAB_MAX_ROWS."""
    variable = names[0].partition("/")[0].removeprefix("--").replace("-", "_").upper()
    return typer.Option(*names, help=help_text, envvar=f"LORALAB_{variable}", show_envvar=False, **options)


def serve(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]RUN...", help="Run folders or hub ids, each with a name of its own if you like.", show_default=False
        ),
    ] = None,
    host: Annotated[str, _option("Address to listen on. 0.0.0.0: all of the machine's.", "--host")] = "127.0.0.1",
    port: Annotated[int, _option("Port; 0: a free one.", "--port", min=0, max=65535)] = 8000,
    watch: Annotated[
        Path | None, _option("Load the runs of a folder, and follow its changes.", "--watch", metavar="FOLDER")
    ] = None,
    api_keys: Annotated[
        Path | None, _option("A file with one API key per line. Default: no key is needed.", "--api-keys", metavar="FILE")
    ] = None,
    allowed_host: Annotated[
        list[str] | None, _option("A further name that clients use for this server; repeatable.", "--allowed-host", metavar="NAME")
    ] = None,
    precision: Annotated[
        str | None, _option("auto, fp32, bf16 or fp16. Default: that of each run.", "--precision", metavar="DTYPE")
    ] = None,
    device: Annotated[str, _option("auto, cpu, cuda, cuda:N or mps.", "--device")] = "auto",
    workers: Annotated[int | None, _option("Threads that compute. Default: one per core.", "--workers", min=1)] = None,
    max_batch_tokens: Annotated[int, _option("Tokens per batch.", "--max-batch-tokens", min=1)] = 1024,
    max_queue: Annotated[int, _option("Texts that may wait; further requests get 429.", "--max-queue", min=1)] = 512,
    state_cache_mb: Annotated[
        int, _option("Memory for states of recent texts that several models have in common.", "--state-cache-mb", min=0)
    ] = 64,
    max_rows: Annotated[int, _option("Texts per request.", "--max-rows", min=1)] = 1024,
    max_text: Annotated[int, _option("Characters per text.", "--max-text", min=1)] = 100_000,
    max_body: Annotated[int, _option("Bytes per request.", "--max-body", min=1)] = 8_000_000,
    max_upload: Annotated[int, _option("Bytes per file that the page takes.", "--max-upload", min=1)] = 200_000_000,
    max_connections: Annotated[int, _option("Open connections.", "--max-connections", min=1)] = 2048,
    timeout: Annotated[float, _option("Seconds until a request is given up with 504.", "--timeout", min=0.01)] = 30.0,
    feedback: Annotated[Path, _option("The CSV that /feedback appends to.", "--feedback", metavar="FILE")] = Path("feedback.csv"),
    drift_texts: Annotated[
        int, _option("Recent texts per model, kept in memory, that drift is measured on; 0: none.", "--drift-texts", min=0)
    ] = 1000,
    labels: Annotated[Path, _option("The folder of what is labelled on the page.", "--labels", metavar="FOLDER")] = Path("labels"),
    where: Annotated[str, _option("local, or ray: as replicas of a Ray Serve application.", "--where")] = "local",
    replicas: Annotated[
        str, _option("With --where ray: how many, or the fewest and the most, such as 1-4.", "--replicas", metavar="N|N-M")
    ] = "1",
    ray_address: Annotated[
        str | None,
        _option("With --where ray: a running Ray. Default: start one here.", "--ray-address", metavar="HOST:PORT"),
    ] = None,
    log_texts: Annotated[bool, _option("Write the texts of requests into the log.", "--log-texts")] = False,
) -> None:
    """Serve trained runs over HTTP, with a page at /.

    \b
    loralab serve runs/quickstart-s42
    curl localhost:8000/v1/classify -H "Content-Type: application/json" -d '{"input": "Oil slips below $50"}'
    loralab serve news=runs/news-s1 tone=runs/tone-s1      several models, which share their encoder
    loralab serve --watch runs                             all runs of a folder, new ones too
    loralab serve runs/news-s1 --host 0.0.0.0 --api-keys keys.txt
    loralab serve runs/news-s1 --where ray --replicas 1-4  replicas by Ray Serve
    \b
    Every option can be set in the environment: --max-rows by LORALAB_MAX_ROWS.
    """
    if not runs and watch is None:
        raise LoralabError("there is nothing to serve: name a run, such as loralab serve runs/quickstart-s42, or --watch FOLDER")
    if where not in ("local", "ray"):
        raise LoralabError(f"--where {where}: valid are local and ray{suggest(where, ('local', 'ray'))}")
    from loralab.serve.settings import ServerSettings

    settings = ServerSettings(
        runs=_named(runs or []),
        folder=watch,
        watch=watch is not None,
        host=host,
        port=port,
        precision=precision,
        device=device,
        workers=workers,
        max_batch_tokens=max_batch_tokens,
        max_queue=max_queue,
        state_cache_mb=state_cache_mb,
        max_rows=max_rows,
        max_text=max_text,
        max_body=max_body,
        max_upload=max_upload,
        max_connections=max_connections,
        timeout=timeout,
        keys=api_keys,
        feedback=feedback,
        labels=labels,
        drift_texts=drift_texts,
        log_texts=log_texts,
        allowed_hosts=tuple(allowed_host or ()),
    )
    _import_server_packages()
    if where == "ray":
        from loralab.serve.on_ray import parse_replicas, run_until_interrupted

        run_until_interrupted(settings, parse_replicas(replicas), ray_address)
        return
    from loralab.serve.run import run_server

    run_server(settings, quiet=OUTPUT.quiet)


def ui(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Your runs; those trained on the page go there, too.")] = Path(
        "runs"
    ),
    port: Annotated[int | None, typer.Option(help="Port. Default: a free one from 8000.", min=1, max=65535)] = None,
    browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in your browser.")] = True,
    labels: Annotated[Path, typer.Option(help="The folder of what you label.", metavar="FOLDER")] = Path("labels"),
) -> None:
    """Open the page in a browser: label, train, try, compare.

    \b
    loralab ui               the runs in ./runs; no run is needed to begin
    loralab ui experiments   those of another folder

    Only this machine can reach the page. It ends with Ctrl-C.
    """
    if (folder / RUN_SETTINGS).is_file() or (folder.exists() and not folder.is_dir()):
        raise LoralabError(f"{folder} is not a folder of runs: give the folder that it is in, such as loralab ui {folder.parent}")
    _import_server_packages()
    from loralab.serve.run import free_port, run_server
    from loralab.serve.settings import ServerSettings

    chosen = port or free_port("127.0.0.1", range(8000, 8020))
    run_server(ServerSettings(folder=folder, port=chosen, labels=labels), quiet=True, browser=browser)


def _import_server_packages() -> None:
    """Raise LoralabError, with what to install, if a package of the extra `serve` is missing."""
    for package in ("fastapi", "uvicorn", "prometheus_client"):
        import_optional(package, "serve")


def _named(runs: list[str]) -> dict[str, str]:
    """Return name → folder or hub id. Raises LoralabError for a name that occurs twice."""
    named: dict[str, str] = {}
    for run in runs:
        name, equals, path = run.partition("=")
        if not equals or Path(run).exists():  # a folder's name may have an equals sign
            path = run
            name = Path(run).resolve().name if Path(run).is_dir() else run
        if name in named:
            raise LoralabError(f"two models would be named {name!r}: name one of them, as in other={path}")
        named[name] = path
    return named
