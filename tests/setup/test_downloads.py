import hashlib
import io
import logging
import runpy
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save
from weight_server import WeightServer, serve

from src.nn.backbone.vit import ViTShape, build_vit
from src.nn.backbone.weight_files import read_state_dict
from src.setup import downloads
from src.setup.downloads import MODELS, Published, download, next_step
from src.setup.licence import ADDRESS

TINY = ViTShape(embed_dim=48, depth=2, num_heads=3)
HUB_NAME = "vit_small_patch16_dinov3.lvd1689m.safetensors"
QUERY = "?Policy=x&Signature=do-not-show-me"


def weights(shape: ViTShape = TINY) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return build_vit("dinov3_small", shape).state_dict()


@pytest.fixture(autouse=True)
def tiny_models(monkeypatch):
    """Every model is a ViT of two blocks."""
    monkeypatch.setattr(downloads, "build_vit", lambda name, _: build_vit(name, TINY))


def ask(server: WeightServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does, which is read as huggingface_hub is imported."""
    template = huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE
    local = template.replace(huggingface_hub.constants.ENDPOINT, server.address)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", local)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.address)


@pytest.fixture
def hub(monkeypatch):
    """A hub on this machine with the same file in every repository."""
    with serve(save(weights())) as server:
        ask(server, monkeypatch)
        yield server


@pytest.fixture
def meta(monkeypatch):
    """Meta's server, and the one model whose file it has."""
    buffer = io.BytesIO()
    torch.save(weights(), buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    name = f"dinov3_vits16_pretrain_lvd1689m-{digest[:8]}.pth"
    monkeypatch.setitem(MODELS, "small", Published("dinov3_small", name))
    with serve(buffer.getvalue()) as server:
        yield server


def link(server: WeightServer, name: str | None = None) -> str:
    return f"{server.address}/dinov3_vits16/{name or MODELS['small'].file}{QUERY}"


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_timms_copy_with_its_digest_beside_it(hub, tmp_path):
    (path,) = download("small", None, tmp_path)
    assert files(tmp_path) == [HUB_NAME, f"{HUB_NAME}.sha256"] and path == tmp_path / HUB_NAME
    assert (tmp_path / f"{HUB_NAME}.sha256").read_text() == f"{hub.etag[1:-1]}  {HUB_NAME}\n"
    assert read_state_dict(path).keys() == weights().keys()
    asked = [(method, address) for method, address, _ in hub.requests if "/timm/" in address]
    repository = "/timm/vit_small_patch16_dinov3.lvd1689m/resolve"
    assert asked == [
        ("HEAD", f"{repository}/main/model.safetensors"),
        ("GET", f"{repository}/{'c' * 40}/model.safetensors"),
    ]


def test_what_is_there_and_whole_is_not_fetched_again(hub, tmp_path):
    download("small", None, tmp_path)
    hub.requests.clear()
    download("small", None, tmp_path)
    assert hub.requests == []


@pytest.mark.usefixtures("hub")
def test_a_damaged_file_is_found_and_replaced(tmp_path, caplog):
    (path,) = download("small", None, tmp_path)
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"as .*\.sha256 says.*damaged or another file"):
        read_state_dict(path)
    with caplog.at_level(logging.WARNING):
        download("small", None, tmp_path)
    assert "downloaded anew" in caplog.text
    assert path.read_bytes() == good


def test_a_whole_file_of_something_else_is_refused_and_kept(hub, tmp_path):
    content = save({"nonsense": torch.ones(1)})
    (tmp_path / HUB_NAME).write_bytes(content)
    with pytest.raises(ValueError, match=r"is there, and is not the weights of dinov3_small.* Move it away"):
        download("small", None, tmp_path)
    assert files(tmp_path) == [HUB_NAME] and (tmp_path / HUB_NAME).read_bytes() == content
    assert hub.requests == []


def test_a_hub_that_breaks_off_is_continued(hub, tmp_path):
    hub.faults = ["redirect", "break"]
    with pytest.raises(ValueError, match="broke off"):
        download("small", None, tmp_path)
    assert files(tmp_path) == [HUB_NAME.replace(".safe", ".part.safe")]
    download("small", None, tmp_path)
    assert hub.ranges() == [None, None, f"bytes={len(hub.content) // 2}-"]
    assert files(tmp_path) == [HUB_NAME, f"{HUB_NAME}.sha256"]


def test_a_hub_without_a_digest_still_gives_what_fits(hub, tmp_path, caplog):
    hub.etag = '"0123456789abcdef0123456789abcdef01234567"'
    with caplog.at_level(logging.WARNING):
        download("small", None, tmp_path)
    assert "only the content is checked" in caplog.text
    assert files(tmp_path) == [HUB_NAME]


@pytest.mark.parametrize("status", [404, 401])
def test_a_hub_that_refuses(hub, tmp_path, status):
    hub.status = status
    with pytest.raises(ValueError, match=rf"huggingface.co/timm/vit_small.* cannot be asked .*{status}"):
        download("small", None, tmp_path)
    assert files(tmp_path) == []


def test_a_hub_that_is_not_there(monkeypatch, tmp_path):
    with serve(b"") as gone:
        ask(gone, monkeypatch)
    with pytest.raises(ValueError, match="cannot be asked for model.safetensors .*online.*HF_ENDPOINT"):
        download("small", None, tmp_path)


def test_another_models_weights_never_get_the_name(hub, tmp_path):
    hub.content = save(weights(TINY._replace(depth=1)))
    hub.etag = f'"{hashlib.sha256(hub.content).hexdigest()}"'
    with pytest.raises(ValueError, match=r"not the weights of dinov3_small.*blocks\.1\..* is not there"):
        download("small", None, tmp_path)
    assert files(tmp_path) == []


@pytest.mark.usefixtures("hub")
def test_all_models_and_what_giant_means(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(downloads, "check_names_and_shapes", lambda *_: None)  # the hub has but one file
    with caplog.at_level(logging.INFO):
        paths = download("all", None, tmp_path)
    assert [path.name.split(".")[0] for path in paths] == [
        f"vit_{size}_patch16_dinov3" for size in ("small", "small_plus", "base", "large", "huge_plus")
    ]
    assert "giant2 means ViT-H+/16" in caplog.text


def test_metas_file_by_its_link(meta, tmp_path, caplog, capfd):
    with caplog.at_level(logging.DEBUG):
        (path,) = download(None, link(meta), tmp_path)
        download("small", link(meta), tmp_path)
    assert files(tmp_path) == [MODELS["small"].file]
    assert read_state_dict(path).keys() == weights().keys()
    assert len(meta.requests) == 1 and meta.requests[0][1].endswith(QUERY)
    assert f"-u DINOv3Backbone.checkpoint_path={path}" in next_step([path])
    told = capfd.readouterr()
    assert "do-not-show-me" not in caplog.text + told.out + told.err


def test_a_wrong_file_by_a_link_never_gets_the_name(meta, tmp_path):
    meta.faults = ["other"]
    with pytest.raises(ValueError, match="thrown away"):
        download(None, link(meta), tmp_path)
    assert files(tmp_path) == []
    download(None, link(meta), tmp_path)
    assert files(tmp_path) == [MODELS["small"].file]


@pytest.mark.parametrize(
    ("model", "name", "words"),
    [
        ("base", None, "which is --model small, not base"),
        ("all", None, "which is --model small, not all"),
        (None, "dinov3_vit7b16_pretrain_lvd1689m-a955f4ea.pth", "known are dinov3_vits16_"),
    ],
)
def test_a_link_to_another_file_is_refused(meta, tmp_path, model, name, words):
    with pytest.raises(ValueError, match=words) as caught:
        download(model, link(meta, name), tmp_path)
    assert "do-not-show-me" not in str(caught.value)
    assert meta.requests == [] and files(tmp_path) == []


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "dinov3.llamameta.net/x.pth?S=do-not-show-me", "https://"]
)
def test_what_is_no_web_address(url, tmp_path):
    with pytest.raises(ValueError, match="no web address") as caught:
        download(None, url, tmp_path)
    assert "do-not-show-me" not in str(caught.value)


def test_nothing_named(tmp_path):
    with pytest.raises(ValueError, match="--model .*giant2, all.*--url"):
        download(None, None, tmp_path)


@pytest.fixture
def call(repo_root, monkeypatch, capfd):
    """Runs the door; gives its exit status and what it said on both streams."""

    def run(*arguments: object) -> tuple[int, str, str]:
        door = str(repo_root / "tools" / "download_dinov3_weights.py")
        monkeypatch.setattr(sys, "argv", [door, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(door, run_name="__main__")
        said = capfd.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def test_without_the_licence_nothing_is_asked_for(call, meta, tmp_path):
    status, out, err = call("--url", link(meta), "--output-dir", tmp_path / "weights")
    assert status == 2 and ADDRESS in err and "--accept-license" in err and not out
    assert meta.requests == [] and files(tmp_path) == []


def test_with_the_licence(call, meta, tmp_path):
    status, out, err = call("--url", link(meta), "--accept-license", "--output-dir", tmp_path)
    assert status == 0 and ADDRESS in out
    assert f"checkpoint_path={tmp_path / MODELS['small'].file}" in out
    assert "do-not-show-me" not in out + err


def test_an_expired_link_ends_with_status_2(call, meta, tmp_path):
    meta.faults = [403]
    status, out, err = call("--url", link(meta), "--accept-license", "--output-dir", tmp_path)
    assert status == 2 and "403 Forbidden" in err
    assert "do-not-show-me" not in out + err
    assert files(tmp_path) == []
