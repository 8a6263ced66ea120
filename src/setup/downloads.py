"""DINOv3's weights, from timm's copies or by a link from Meta: whole under their final name, or not there."""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import huggingface_hub
import torch
from huggingface_hub.errors import HfHubHTTPError
from torch import Tensor

from ..files import write_whole
from ..nn.backbone.dinov3_keys import convert_to_timm
from ..nn.backbone.vit import ViTShape, build_vit, published_as
from ..nn.backbone.weight_files import check_names_and_shapes, digest_file, in_short, read_state_dict
from .transfer import Source, fetch

logger = logging.getLogger(__name__)


class Published(NamedTuple):
    """A DINOv3 model.

    Attributes:
        model_name: What `DINOv3Backbone.model_name` calls it.
        file: Meta's file; its name ends with the beginning of its SHA-256.
    """

    model_name: str
    file: str


MODELS = {
    "small": Published("dinov3_small", "dinov3_vits16_pretrain_lvd1689m-08c60483.pth"),
    "small_plus": Published("dinov3_small_plus", "dinov3_vits16plus_pretrain_lvd1689m-4057cbaa.pth"),
    "base": Published("dinov3_base", "dinov3_vitb16_pretrain_lvd1689m-73cec8be.pth"),
    "large": Published("dinov3_large", "dinov3_vitl16_pretrain_lvd1689m-8aa4cbdd.pth"),
    "giant2": Published("dinov3_huge_plus", "dinov3_vith16plus_pretrain_lvd1689m-7c1da9a5.pth"),
}
ALL = "all"
HUB_FILE = "model.safetensors"

# The hub's own errors, and those of its HTTP client, which is another one from version to version.
_HUB_ERRORS: tuple[type[BaseException], ...] = (OSError, *HfHubHTTPError.__bases__)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def download(model: str | None, url: str | None, folder: Path) -> list[Path]:
    """Bring weights into `folder`; those that are there and whole stay as they are.

    Args:
        model: A key of `MODELS`, or "all"; None where `url` says it.
        url: A link to one of Meta's files; None for timm's copies.
        folder: Made where it is missing.

    Returns:
        The files, ready to be named in `DINOv3Backbone.checkpoint_path`.

    Raises:
        ValueError: A file could not be had, or is not what it was to be; the message says what to do.
    """
    if url is not None:
        published = _linked(url, model)
        return [from_link(published, url, folder)]
    names = _chosen(model)
    if "giant2" in names:
        logger.info("DINOv3 has no giant model: giant2 means ViT-H+/16, 840 million parameters")
    return [from_hub(MODELS[name], folder) for name in names]


def _chosen(model: str | None) -> Sequence[str]:
    if model is None:
        raise ValueError(f"name a model with --model ({', '.join([*MODELS, ALL])}), or a link with --url")
    return list(MODELS) if model == ALL else [model]


def _linked(url: str, model: str | None) -> Published:
    """The model that a link is for, known by the file's name in it."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("--url is no web address: it begins with https:// and is put between single quotes")
    name = unquote(parts.path).rpartition("/")[2]
    known = {published.file: key for key, published in MODELS.items()}
    if name not in known:
        raise ValueError(f"--url is a link to {name!r}; known are {', '.join(known)}")
    if model is not None and model != known[name]:
        raise ValueError(f"--url is a link to {name}, which is --model {known[name]}, not {model}")
    return MODELS[known[name]]


def from_link(published: Published, url: str, folder: Path) -> Path:
    """Bring Meta's file; its name says what its digest begins with."""
    path = folder / published.file
    if not _is_there(path, published.model_name):
        digest = path.stem.rpartition("-")[2]
        os.replace(_fitting(fetch(Source(url, digest), path), published.model_name), path)
    return path


def from_hub(published: Published, folder: Path) -> Path:
    """Bring timm's copy; what the hub says of its digest is kept beside it."""
    with torch.device("meta"):
        repository, _ = published_as(build_vit(published.model_name, ViTShape()))
    path = folder / f"{repository.rpartition('/')[2]}{Path(HUB_FILE).suffix}"
    if not _is_there(path, published.model_name):
        source = _on_hub(repository)
        part = _fitting(fetch(source, path), published.model_name)
        digest_file(path).unlink(missing_ok=True)
        if source.sha256:  # before the file: one without its digest would stay so
            write_whole(digest_file(path), f"{source.sha256}  {path.name}\n".encode())
        os.replace(part, path)
    return path


def _on_hub(repository: str) -> Source:
    """The address of the file as it is now, and its digest, which is its ETag there."""
    try:
        url = huggingface_hub.hf_hub_url(repository, HUB_FILE)
        told = huggingface_hub.get_hf_file_metadata(url)
    except _HUB_ERRORS as error:
        assert isinstance(error, Exception)
        raise ValueError(
            f"huggingface.co/{repository}: cannot be asked for {HUB_FILE} ({in_short(error)}). Is this "
            "machine online, does it need a proxy (https_proxy) or another hub (HF_ENDPOINT)? weights/README"
            ".md says how to bring the file from another machine."
        ) from error
    digest = told.etag or ""
    if not _SHA256.fullmatch(digest):
        logger.warning("%s: no SHA-256 is published there, so only the content is checked", repository)
        digest = ""
    return Source(huggingface_hub.hf_hub_url(repository, HUB_FILE, revision=told.commit_hash), digest)


def _is_there(path: Path, model_name: str) -> bool:
    """Whether `path` is there and agrees with its digest; a damaged one is said and then replaced.

    Raises:
        ValueError: It is whole, and holds something else than the weights of the model.
    """
    if not path.is_file():
        return False
    try:
        state = read_state_dict(path)
    except ValueError as error:
        logger.warning("%s It is downloaded anew.", error)
        return False
    try:
        _check_fit(state, model_name)
    except ValueError as error:
        raise ValueError(
            f"{path} is there, and is not the weights of {model_name}: {error} Move it away, or name another "
            "folder with --output-dir."
        ) from error
    logger.info("%s is there already", path)
    return True


def _check_fit(state: Mapping[str, Tensor], model_name: str) -> None:
    with torch.device("meta"):
        vit = build_vit(model_name, ViTShape())
    check_names_and_shapes(convert_to_timm(state, vit, len(vit.blocks)), vit.state_dict())


def _fitting(part: Path, model_name: str) -> Path:
    """`part` itself, if it holds the weights of the model.

    Raises:
        ValueError: It does not; then it is thrown away.
    """
    try:
        _check_fit(read_state_dict(part), model_name)
    except ValueError as error:
        part.unlink()
        raise ValueError(
            f"what came is not the weights of {model_name}, and was thrown away: {error}"
        ) from error
    return part


def next_step(paths: Sequence[Path]) -> str:
    """What to do with the files."""
    stated = [f"  -u DINOv3Backbone.checkpoint_path={path}" for path in paths]
    return "\n".join(["to train with them, name one in the config or on the command line:", *stated])
