"""A detector as the Hugging Face hub knows models: a folder of weights, configuration and a page.

Nothing here uses the network unless it is told to, by `download=True` or by a push.
"""

import logging
import posixpath
import re
import tempfile
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import huggingface_hub
import yaml
from huggingface_hub.errors import HfHubHTTPError

from .. import assembly
from ..files import staged_folder, write_whole
from ..nn.backbone.weight_files import in_short
from ..solver.portable import HUB_CARD, HUB_WEIGHTS, refuse_wrong_types, sealed_card
from .checkpoint_files import portable
from .model_page import LICENCE_FILE, model_page
from .trained import Trained, metrics_of, stamp_of

logger = logging.getLogger(__name__)

PAGE = "README.md"
FILES = (HUB_WEIGHTS, HUB_CARD, PAGE, LICENCE_FILE)
NEEDED = (HUB_WEIGHTS, HUB_CARD)

# the hub's own errors, and those of its HTTP client, which is another one from version to version
HUB_ERRORS: tuple[type[BaseException], ...] = (OSError, ValueError, *HfHubHTTPError.__bases__)
_HOME_OR_ADDRESS = re.compile(r"~[^/\\]*[/\\]|file:[/\\]", re.IGNORECASE)


def save_pretrained(
    trained: Trained | None,
    folder: str | Path,
    *,
    license: str | None = None,
    license_file: str | Path | None = None,
) -> None:
    """See `Detector.save_pretrained`; without `trained` it is an exported file's."""
    if trained is None:
        raise ValueError("an exported file has no weights to publish; load the checkpoint that it came from")
    if trained.is_dinov3 and license is not None:
        raise ValueError(
            f"license {license!r} is stated, but the model is trained from DINOv3's weights and under the "
            "DINOv3 License; leave license out, and give that licence's text as license_file"
        )
    if stamp_of(trained.path) != trained.stamp:
        raise ValueError(f"{trained.path}: has changed or gone since the detector was loaded; load it again")
    text = None if license_file is None else _read(Path(license_file))
    told, tensors = portable(trained.path)
    metrics = metrics_of(trained, told)
    if not metrics.numbers:
        told.pop("best", None)  # it is another checkpoint's
    told["classes"] = trained.classes._asdict()
    refuse_wrong_types(told, trained.path)
    page = model_page(
        Path(folder).resolve().name,
        trained,
        told,
        metrics,
        license=license,
        with_license_file=text is not None,
    )
    told["input_size_hw"] = trained.experiment.eval_spatial_size
    told["config"] = _without_folders(yaml.safe_load(assembly.dump(trained.experiment)))
    obsolete = [LICENCE_FILE] if text is None else []
    with staged_folder(Path(folder), obsolete=obsolete) as stage:
        write_whole(stage / HUB_WEIGHTS, tensors)
        write_whole(stage / HUB_CARD, sealed_card(told, tensors).encode())
        write_whole(stage / PAGE, page.encode())
        if text is not None:
            write_whole(stage / LICENCE_FILE, text)
    if trained.is_dinov3 and text is None:
        logger.warning("%s: the DINOv3 License asks for a copy of it here; give it as license_file", folder)


def find_pretrained(source: str | Path, *, revision: str | None = None, download: bool = False) -> Path:
    """The weights of a saved model, with its config beside them; see `Detector.from_pretrained`."""
    if not str(source).strip():
        raise ValueError("an empty name was given; name a folder, or a repository of the hub as user/name")
    folder = Path(source)
    if folder.is_dir():
        if revision is not None or download:
            raise ValueError(f"{folder}: is a folder on this machine; leave revision and download out")
    elif folder.exists():
        raise ValueError(f"{folder}: is a file; Detector.load opens it")
    else:
        folder = _snapshot(str(source), revision, download)
    for name in NEEDED:
        if not (folder / name).is_file():
            raise ValueError(f"{folder}: has no {name}; copy it again, or write it with save_pretrained")
    return folder / HUB_WEIGHTS


def push_to_hub(
    trained: Trained | None,
    repo_id: str,
    *,
    private: bool = True,
    license: str | None = None,
    license_file: str | Path | None = None,
) -> str:
    """See `Detector.push_to_hub`."""
    if trained is not None and trained.is_dinov3 and license_file is None:
        raise ValueError(
            f"{repo_id}: nothing was uploaded. The model is trained from DINOv3's weights, whose licence "
            "asks that a copy of it goes with them; give its text as license_file"
        )
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / PurePath(repo_id).name
        save_pretrained(trained, folder, license=license, license_file=license_file)
        hub = huggingface_hub.HfApi()
        try:
            made = hub.create_repo(repo_id, private=private, exist_ok=True).repo_id
            return str(
                hub.upload_folder(repo_id=made, folder_path=folder, commit_message="Upload a detector")
            )
        except HUB_ERRORS as error:
            assert isinstance(error, Exception)
            raise ValueError(
                f"{repo_id}: could not be uploaded to the hub ({in_short(error)}); `hf auth login` says who "
                "you are"
            ) from error


def _snapshot(repo_id: str, revision: str | None, download: bool) -> Path:
    """The folder in which the hub's library keeps the repository's files."""
    try:
        found = huggingface_hub.snapshot_download(
            repo_id, revision=revision, local_files_only=not download, allow_patterns=list(FILES)
        )
    except HUB_ERRORS as error:
        assert isinstance(error, Exception)
        if download:
            raise ValueError(
                f"{repo_id}: could not be downloaded from the hub ({in_short(error)})"
            ) from error
        raise ValueError(
            f"{repo_id}: is no folder here, and no repository of the hub that was downloaded before; "
            "download=True asks the hub for it"
        ) from error
    return Path(found)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error


def _without_folders(value: Any) -> Any:
    """`value` with paths that lead outside the working directory cut to their last name.

    The rest of them means nothing elsewhere, and tells of whoever wrote them. What stands under `params` are
    patterns, no paths.
    """
    if isinstance(value, dict):
        return {key: item if key == "params" else _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    if not isinstance(value, str):
        return value
    path = PurePosixPath(posixpath.normpath(value.replace("\\", "/")))
    elsewhere = path.is_absolute() or path.parts[:1] == ("..",) or PureWindowsPath(value).drive
    return (path.name or ".") if elsewhere or _HOME_OR_ADDRESS.match(value) else value
