"""Publish a run's model on the Hugging Face hub: the model and its card in one commit, and nothing else of the run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from loralab import __version__
from loralab.config.paths import hub_id
from loralab.errors import LoralabError, RunFailed, suggest
from loralab.inference.export import export_run
from loralab.model.checkpoints import BASE_CONFIG, WEIGHTS
from loralab.model.hub_files import ENCODER_CONFIG, TOKENIZER, TOKENIZER_CONFIG, base_reference
from loralab.model.manifest import MANIFEST, READ_FILES, Manifest, read_manifest
from loralab.model.peft_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from loralab.model.snapshots import MODEL_ID
from loralab.model.tensor_files import HEAD_WEIGHTS
from loralab.report.model_card import Publication, model_card
from loralab.report.run_data import read_run
from loralab.storage import run_folder
from loralab.storage.files import read_json_object
from loralab.storage.sealed import FileRecord

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Form = Literal["bundle", "peft", "merged"]
PUBLIC_FILES = frozenset(
    (ADAPTER_CONFIG, ADAPTER_WEIGHTS, HEAD_WEIGHTS, WEIGHTS, TOKENIZER, TOKENIZER_CONFIG, BASE_CONFIG, ENCODER_CONFIG, MANIFEST)
)
"""The only files of a run that are uploaded. The model card is written for the hub."""
CARD = run_folder.CARD
_SIGN_IN = "run `hf auth login`, or set HF_TOKEN to a token with write access (huggingface.co/settings/tokens)"


@dataclass(frozen=True)
class Upload:
    """A model that is ready for the hub. files: a path or the content by name; remarks: what others need to use the model."""

    publication: Publication
    files: Mapping[str, Path | bytes]
    remarks: tuple[str, ...] = ()

    @property
    def megabytes(self) -> dict[str, float]:
        """The size of each file in MB of 10⁶ bytes, by name."""
        sizes = ((name, len(file) if isinstance(file, bytes) else file.stat().st_size) for name, file in self.files.items())
        return {name: size / 1e6 for name, size in sizes}


def push_to_hub(  # noqa: PLR0913 - public: the options of `loralab push`
    run: str | Path,
    repo_id: str,
    *,
    what: Form = "bundle",
    private: bool = False,
    revision: str | None = None,
    commit_message: str | None = None,
    token: str | None = None,
    base: str | None = None,
    announce: Callable[[Upload], None] = lambda upload: None,
    progress: Callable[[str], None] = lambda stage: None,
) -> str:
    """Publish a complete run's model with its model card as one commit, and return the commit's URL.

    repo_id: `user/name` or `organization/name`, created if missing. what: bundle (the run's model folder, for loralab and peft),
    peft or merged (`loralab export`, made if the run does not have it yet). private: create a private repository, and refuse a
    public one. revision: the branch, created if missing; None: main. token: None takes that of `hf auth login` or HF_TOKEN. base:
    the base's folder, if it has moved. announce: receives what will be uploaded before anything is sent. Model files that an
    earlier push left in the repository and this one does not have are deleted in the same commit; other files stay.

    Raises LoralabError for an incomplete run, a missing token, and a repository that the token may not write; RunFailed if the hub
    cannot be reached or fails. Both leave the repository without a new commit.
    """
    folder = Path(run)
    _check_arguments(folder, repo_id, what, revision)
    _check_access(token)
    upload = prepare_upload(folder, Publication(repo_id, what, revision), base=base, progress=progress)
    announce(upload)
    progress(f"uploading {sum(upload.megabytes.values()):,.1f} MB to {repo_id}")
    try:
        return _commit(upload, private, commit_message or f"Upload {folder.resolve().name} ({what}) with loralab", token)
    except LoralabError:
        raise
    except Exception as error:  # the hub's client raises errors of several libraries
        raise _explain(error, repo_id) from error


def prepare_upload(
    run: Path, publication: Publication, *, base: str | None = None, progress: Callable[[str], None] = lambda stage: None
) -> Upload:
    """Return the files to publish of a complete run, without paths of this machine. Exports the run if the form needs it."""
    folder = run_folder.model_folder(run)
    if publication.form != "bundle":
        folder = run / run_folder.EXPORTS / publication.form
        if not (folder / run_folder.EXPORT_CHECK).is_file():
            export_run(run, publication.form, base=base, progress=progress)
    manifest = read_manifest(folder)
    manifest.check_files(folder)
    public = _public_manifest(manifest)
    files: dict[str, Path | bytes] = {name: folder / name for name in sorted(PUBLIC_FILES) if (folder / name).is_file()}
    if ADAPTER_CONFIG in files:
        files[ADAPTER_CONFIG] = _public_adapter_config(folder / ADAPTER_CONFIG, public)
    files[MANIFEST] = replace(public, files=_records(files)).to_json().encode()
    license, language = _author_metadata(run / CARD)
    data, publication = read_run(run), replace(publication, license=license, language=language)
    files[CARD] = model_card(data, frozenset(files), publication).encode("utf-8", "replace")
    _check_private(files, [run.resolve(), *(Path(path) for path in (manifest.base, manifest.base_folder, data.config.data.source))])
    remarks = []
    if manifest.tuning != "full" and public.base != manifest.base:
        remarks.append(f"the base {public.base} is a folder on this machine: whoever loads the model needs it, with base=FOLDER")
    if license is None:
        remarks.append(f"the model card has no license: set `license` at the top of {run / CARD}, which `loralab report` writes")
    return Upload(publication, files, tuple(remarks))


def _check_arguments(run: Path, repo_id: str, what: str, revision: str | None) -> None:
    if what not in get_args(Form):
        raise LoralabError(f"--as {what}: there is no such form{suggest(what, get_args(Form))}; valid: {', '.join(get_args(Form))}")
    if not MODEL_ID.fullmatch(repo_id):
        raise LoralabError(f"{repo_id!r} is not the id of a model on the hub: write USER/NAME or ORGANIZATION/NAME")
    if revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision):
        raise LoralabError(f"--revision {revision}: a commit cannot be changed; name a branch")
    if not (run / run_folder.CONFIG).is_file():
        raise LoralabError(f"{run} is not a run: it has no {run_folder.CONFIG}; push the run's folder, such as runs/quickstart-s42")
    if not (run / run_folder.SCORES).is_file():
        raise LoralabError(f"the run {run} is not complete: resume it with --resume, then push it")


def _check_access(token: str | None) -> None:
    """Raise LoralabError if no request could succeed."""
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise LoralabError("HF_HUB_OFFLINE is set, so nothing can be uploaded: unset it")
    if token is None and get_token() is None:
        raise LoralabError(f"there is no token for the Hugging Face hub: {_SIGN_IN}")


def _public_manifest(manifest: Manifest) -> Manifest:
    """Return the manifest without folders of this machine. A base that is a local folder keeps its name."""
    return replace(manifest, base=manifest.base if hub_id(manifest.base) else Path(manifest.base).name, base_folder="")


def _records(files: Mapping[str, Path | bytes]) -> dict[str, FileRecord]:
    """Return the checksums of the files to upload, by name."""
    known = {name: file for name, file in files.items() if name in READ_FILES}
    return {name: FileRecord.of_bytes(file) if isinstance(file, bytes) else FileRecord.of(file) for name, file in known.items()}


def _public_adapter_config(path: Path, manifest: Manifest) -> bytes:
    """Return adapter_config.json with the base's public name."""
    content = read_json_object(path, "restore the model from a copy, or train it again")
    content["base_model_name_or_path"], content["revision"] = base_reference(manifest)
    return (json.dumps(content, indent=2) + "\n").encode()


def _author_metadata(card: Path) -> tuple[str | None, str | list[str] | None]:
    """Return the license and the language that the author set in the run's own card; None for the card's defaults."""
    from huggingface_hub import ModelCard

    try:
        data: Any = ModelCard.load(card).data if card.is_file() else None
    except (OSError, ValueError):  # edited into something else
        return None, None
    return getattr(data, "license", None), getattr(data, "language", None)


def _check_private(files: Mapping[str, Path | bytes], paths: list[Path]) -> None:
    """Raise LoralabError if a text to upload has one of these paths of this machine."""
    private = [str(path) for path in paths if path.is_absolute() and len(path.parts) > 2]
    for name, file in files.items():
        if name in (TOKENIZER, *(weights for weights in files if weights.endswith(".safetensors"))):
            continue
        text = (file if isinstance(file, bytes) else file.read_bytes()).decode("utf-8", "replace").replace("\\", "")
        if leak := next((path for path in private if path.replace("\\", "") in text), None):  # JSON and Markdown write backslashes
            raise LoralabError(f"{name} names the path {leak} of this machine, so nothing was uploaded: rename what contains it")


def _commit(upload: Upload, private: bool, message: str, token: str | None) -> str:
    """Create the repository and the branch if missing, and upload all files as one commit. Returns the commit's URL."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api, revision = HfApi(token=token, library_name="loralab", library_version=__version__), upload.publication.revision
    repo_id = upload.publication.repo_id
    api.create_repo(repo_id, private=private or None, exist_ok=True)
    if private:
        _require_private(api, repo_id)
    if revision not in (None, "main"):
        api.create_branch(repo_id, branch=str(revision), exist_ok=True)
    stale = PUBLIC_FILES.intersection(api.list_repo_files(repo_id, revision=revision)) - set(upload.files)
    operations: list[Any] = [CommitOperationDelete(name) for name in sorted(stale)]
    operations += [CommitOperationAdd(name, file) for name, file in upload.files.items()]
    return str(api.create_commit(repo_id, operations, commit_message=message, revision=revision).commit_url)


def _require_private(api: HfApi, repo_id: str) -> None:
    """Raise LoralabError for a repository that exists and is public: creating it privately changed nothing."""
    if not api.model_info(repo_id).private:
        raise LoralabError(
            f"--private: {repo_id} exists and is public, so nothing was uploaded: make it private in its settings on the hub, or "
            "choose another name"
        )


def _explain(error: BaseException, repo_id: str) -> LoralabError:
    """Return the error with what went wrong at the hub and what to do."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    chain = [*_chain(error)]
    refused = next((part for part in chain if isinstance(part, HfHubHTTPError) and part.response is not None), None)
    if refused is not None:
        status, reason = refused.response.status_code, (refused.server_message or "").strip()
        answer = f" ({status}{': ' + reason if reason else ''})"
        if status == 401:
            return LoralabError(f"the hub does not accept the token{answer}: {_SIGN_IN}")
        if status == 403:
            return LoralabError(
                f"the token may not write to {repo_id}{answer}: the repository belongs to somebody else, or the token may only "
                "read; push to a name of your own, or use a token with write access"
            )
        if status == 404:
            return LoralabError(f"the hub has no repository {repo_id} that this token sees{answer}: check the name and the token")
        if status in (409, 412):
            return RunFailed(f"{repo_id} was changed at the same time{answer}: push again")
        if status < 500 and status != 429:
            return LoralabError(f"the hub refuses the upload to {repo_id}{answer}")
        return RunFailed(f"the hub failed during the upload to {repo_id}{answer}: nothing was committed; push again later")
    if any(isinstance(part, OfflineModeIsEnabled) for part in chain):
        return LoralabError("HF_HUB_OFFLINE is set, so nothing can be uploaded: unset it")
    cause = chain[-1] if isinstance(error, RuntimeError) else error  # which the client raises around a failed upload
    reason = ": ".join(filter(None, (type(cause).__name__, *str(cause).strip().splitlines()[:1])))
    if isinstance(error, ValueError):
        return LoralabError(f"the hub refuses the upload to {repo_id} ({reason})")
    return RunFailed(
        f"the Hugging Face hub cannot be reached, or the connection broke ({reason}): no commit was "
        "confirmed; check the network and push again"
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the errors that caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
