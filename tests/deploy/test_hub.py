"""A detector written as the hub knows models, and read again: the same one, offline, whole or not at all."""

import json
import runpy
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import safetensors
import torch
from hub_server import COMMIT, HubServer, hub_on_loopback
from lab_cases import Lab
from PIL import Image

from src import assembly, door
from src.deploy import Detector, hub
from src.deploy.checkpoint_files import describe
from src.solver.checkpoint import read_checkpoint

FILES = ["README.md", "config.json", "model.safetensors"]
PICTURE = Image.linear_gradient("L").resize((90, 60)).convert("RGB")


@pytest.fixture
def folder(lab: Lab, tmp_path: Path) -> Path:
    lab.detector.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of downloads."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:  # noqa: ARG001  # set up before
    """What HF_ENDPOINT does, which is read as huggingface_hub is imported."""
    constants = huggingface_hub.constants
    with hub_on_loopback() as one:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, one.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", one.address)
        yield one


def test_a_saved_detector_is_the_same_one(lab: Lab, folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == FILES
    loaded = Detector.from_pretrained(folder, device="cpu")
    assert loaded.classes == lab.detector.classes
    (expected,), (found,) = lab.detector(PICTURE, 0.0), loaded(PICTURE, 0.0)
    for name in ("scores", "labels", "boxes"):
        assert torch.equal(found[name], expected[name])
    loaded.save_pretrained(folder.with_name("again"))
    for name in FILES[1:]:
        assert (folder.with_name("again") / name).read_bytes() == (folder / name).read_bytes()


def test_other_programs_read_the_folder(lab: Lab, folder: Path) -> None:
    card = huggingface_hub.ModelCard.load(folder / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("d-fine", "object-detection")
    weights = read_checkpoint(lab.folder / "best.pth")["model"]
    with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(weights)
        assert all(torch.equal(file.get_tensor(name), weights[name]) for name in weights)
    told = json.loads((folder / "config.json").read_text())
    assert told["input_size_hw"] == [72, 104]
    assert told["classes"] == {"names": ["cat", "dog", "owl"], "ids": [1, 7, 90]}
    assert told["config"]["eval_spatial_size"] == [72, 104]


def test_every_tool_reads_the_weights(lab: Lab, folder: Path) -> None:
    assert "intact, in config.json" in describe(folder / "model.safetensors")
    (found,), (expected,) = Detector.load(folder, device="cpu")(PICTURE, 0.0), lab.detector(PICTURE, 0.0)
    assert torch.equal(found.scores, expected.scores)


def test_the_config_loads_strictly_and_names_no_folder_of_its_writer(lab: Lab, tmp_path: Path) -> None:
    places = ["data=/home/alice/secret/cells", "output_dir=../alice/run", "num_classes=3"]
    detector = Detector.load(lab.folder / "best.pth", overrides=places, device="cpu")
    detector.save_pretrained(tmp_path / "model")
    assert "alice" not in "".join(path.read_text("latin-1") for path in (tmp_path / "model").iterdir())
    config = tmp_path / "config.yml"
    config.write_text(read_checkpoint(tmp_path / "model" / "model.safetensors")["config"])
    experiment = assembly.load(config)
    assert (experiment.data, experiment.output_dir, experiment.num_classes) == ("cells", "run", 3)
    (tmp_path / "model" / "config.json").write_text('{"config": {"epochs": 1, "epocs": 2}}')
    with pytest.raises(ValueError, match="unknown key epocs"):
        Detector.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize(
    ("stated", "published"),
    [
        ("./../../alice/x", "x"),
        ("data/../../../alice/x", "x"),
        (r"data\..\..\alice\x", "x"),
        (r"\\server\alice\x", "x"),
        ("//server/alice/x", "x"),
        (r"C:\alice\x", "x"),
        (r"C:alice\x", "x"),
        ("file:///home/alice/x", "x"),
        ("~alice/x", "x"),
        ("/", "."),
        *((kept, kept) for kept in ("", "data/x", "./x", "x/../y", "...", "~", "cuda:0", "https://a/b")),
    ],
)
def test_paths_that_lead_elsewhere_lose_their_folders(stated: str, published: str) -> None:
    patterns = {"params": r"\.bias/.*"}
    assert hub._without_folders({"a": [stated], "groups": [patterns]}) == {
        "a": [published],
        "groups": [patterns],
    }


@pytest.mark.usefixtures("no_network")
def test_nothing_asks_the_network(lab: Lab, folder: Path, cache: Path) -> None:
    Detector.from_pretrained(folder, device="cpu").save_pretrained(folder)
    with pytest.raises(ValueError, match=r"user/model: is no folder here.*download=True asks the hub"):
        Detector.from_pretrained("user/model")
    with pytest.raises(ValueError, match="is no folder here"):
        Detector.from_pretrained(folder / "absent" / "one")
    stored = cache / "models--user--model"
    shutil.copytree(folder, stored / "snapshots" / COMMIT)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text(COMMIT)
    cached = Detector.from_pretrained("user/model", device="cpu")
    assert torch.equal(cached(PICTURE, 0.0)[0].scores, lab.detector(PICTURE, 0.0)[0].scores)
    with pytest.raises(ValueError, match="is no folder here"):
        Detector.from_pretrained("user/model", revision="v2")
    with pytest.raises(AssertionError, match="the network was asked"):
        Detector.from_pretrained("user/other", download=True)


def test_what_is_pushed_can_be_downloaded(
    lab: Lab, folder: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"user/model: could not be downloaded .*RepositoryNotFoundError"):
        Detector.from_pretrained("user/model", download=True)
    address = lab.detector.push_to_hub("user/model")
    assert address.startswith(f"{server.address}/user/model/")
    (made,) = server.created
    assert made.get("visibility") == "private" or made["private"] is True  # from version to version
    assert server.files == {name: (folder / name).read_bytes() for name in FILES}
    found = Detector.from_pretrained("user/model", download=True, device="cpu")
    assert torch.equal(found(PICTURE, 0.0)[0].scores, lab.detector(PICTURE, 0.0)[0].scores)
    asked = len(server.requests)
    Detector.from_pretrained("user/model", device="cpu")
    assert len(server.requests) == asked
    monkeypatch.setattr(server, "refuses", True)
    with pytest.raises(ValueError, match=r"user/model: could not be uploaded .*`hf auth login`"):
        lab.detector.push_to_hub("user/model")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), r"has no config\.json; copy it again"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"has no model\.safetensors"),
        (lambda folder: flip(folder / "model.safetensors"), r"model\.safetensors: is damaged"),
        (lambda folder: flip(folder / "config.json"), r"config\.json: (is damaged|cannot be read)"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json: cannot be read as JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), r"config\.json: holds a list"),
        (lambda folder: (folder / "config.json").write_text("{}"), r"model\.safetensors: holds no config"),
    ],
)
def test_damage_is_told_in_one_error(folder: Path, harm, message: str) -> None:
    harm(folder)
    with pytest.raises(ValueError, match=message):
        Detector.from_pretrained(folder)


def test_another_number_of_classes_is_told(folder: Path) -> None:
    card = json.loads((folder / "config.json").read_text())
    card["classes"] = {"names": ["cat"], "ids": [1]}
    del card["format"], card["sha256"]
    (folder / "config.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"model\.safetensors: 1 classes .*num_classes is 3; correct"):
        Detector.from_pretrained(folder)


def test_a_file_and_a_folder_with_wishes_are_refused(lab: Lab, folder: Path) -> None:
    for empty in ("", " "):
        with pytest.raises(ValueError, match="an empty name was given"):
            Detector.from_pretrained(empty)
    with pytest.raises(ValueError, match=r"best\.pth: is a file; Detector\.load opens it"):
        Detector.from_pretrained(lab.folder / "best.pth")
    for wish in ({"download": True}, {"revision": "main"}):
        with pytest.raises(ValueError, match="leave revision and download out"):
            Detector.from_pretrained(folder, **wish)


def test_a_folder_is_written_whole_or_not_at_all(
    lab: Lab, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    whole = hub.write_whole

    def full(path: Path, data: bytes) -> None:
        if path.name == "README.md":
            raise ValueError(f"cannot write {path}: No space left on device")
        whole(path, data)

    monkeypatch.setattr(hub, "write_whole", full)
    for place in (folder, tmp_path / "new"):
        with pytest.raises(ValueError, match="No space left"):
            lab.detector.save_pretrained(place)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert not (tmp_path / "new").exists()


def test_a_folder_in_the_way_leaves_all_files_as_they_were(lab: Lab, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    for name in FILES[:2]:
        (folder / name).write_text("before")
    with pytest.raises(ValueError, match=r"model\.safetensors: a folder has this name"):
        lab.detector.save_pretrained(folder)
    assert [(folder / name).read_text() for name in FILES[:2]] == ["before"] * 2


def test_a_licence_of_an_earlier_save_goes(lab: Lab, folder: Path) -> None:
    (folder / "terms.txt").write_text("terms")
    lab.detector.save_pretrained(folder, license_file=folder / "terms.txt")
    assert (folder / "LICENSE.md").read_text() == "terms"
    assert "in LICENSE.md" in (folder / "README.md").read_text()
    lab.detector.save_pretrained(folder)
    assert sorted(path.name for path in folder.iterdir()) == [*FILES, "terms.txt"]
    assert "LICENSE.md" not in (folder / "README.md").read_text()


def test_the_door_writes_such_a_folder(
    lab: Lab,
    folder: Path,
    repo_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place, terms = folder.with_name("by_door") / "model", folder / "README.md"
    given = ["hub", lab.folder / "best.pth", "--to", place, "--license", "mit", "--license-file", terms]
    monkeypatch.setattr(sys, "argv", ["checkpoint.py", *map(str, given)])
    assert door.run(runpy.run_path(str(repo_root / "tools/checkpoint.py"), run_name="door")["main"]) == 0
    assert "intact, in config.json" in capsys.readouterr().out
    assert sorted(path.name for path in place.iterdir()) == ["LICENSE.md", *FILES]
    for name in FILES[1:]:
        assert (place / name).read_bytes() == (folder / name).read_bytes()
    assert huggingface_hub.ModelCard.load(place / "README.md").data.license == "mit"


def test_what_cannot_be_saved_is_told(lab: Lab, tmp_path: Path) -> None:
    shutil.copyfile(lab.folder / "best.pth", tmp_path / "best.pth")
    detector = Detector.load(tmp_path / "best.pth", device="cpu")
    shutil.copyfile(lab.folder / "plain.pth", tmp_path / "best.pth")
    with pytest.raises(ValueError, match=r"best\.pth: has changed or gone since"):
        detector.save_pretrained(tmp_path / "model")
    exported = Detector(detector.runtime)
    with pytest.raises(ValueError, match="load the checkpoint that it came from"):
        exported.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=r"absent\.md: cannot be read"):
        lab.detector.save_pretrained(tmp_path / "model", license_file=tmp_path / "absent.md")
    assert not (tmp_path / "model").exists()
