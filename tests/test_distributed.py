import os
import runpy
import sys
import threading
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from src import distributed


def attempt(store: dist.Store, world_size: int) -> set[str]:
    """Names that the ranks of one attempt settle on."""
    names: list[str] = []
    ranks = [
        threading.Thread(target=lambda r=r: names.append(distributed._agree_on_attempt(store, r, world_size)))
        for r in range(world_size)
    ]
    for thread in ranks:
        thread.start()
    for thread in ranks:
        thread.join(20)
    assert len(names) == world_size
    return set(names)


def test_ranks_agree_on_a_name_that_no_earlier_attempt_had() -> None:
    store = dist.HashStore()
    names = [attempt(store, world_size) for world_size in (3, 3, 2, 1, 3)]
    assert all(len(name) == 1 for name in names)
    assert len(set.union(*names)) == 5


def test_a_rank_does_not_take_a_dead_one_for_its_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    store = dist.HashStore()
    attempt(store, 2)  # leaves a token of rank 1
    monkeypatch.setattr(distributed, "TIMEOUT", distributed.timedelta(seconds=0.2))
    with pytest.raises(TimeoutError, match=r"ranks \[1\] did not join"):
        distributed._agree_on_attempt(store, 0, 2)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            RuntimeError("[/x/pair.cc:561] Connection closed by peer [::1]. Check"),
            "Connection closed by peer [::1]",
        ),
        (
            dist.DistBackendError("NCCL error, remote process exited\nmore"),
            "NCCL error, remote process exited",
        ),
        (RuntimeError("shapes differ"), None),
        (ConnectionResetError("Connection reset by peer"), None),  # of a download
    ],
)
def test_a_lost_peer_is_told_from_other_faults(
    error: Exception, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    assert distributed.lost_peer(error) == said
    monkeypatch.setattr(distributed, "world_size", lambda: 1)
    assert distributed.lost_peer(error) is None


def test_barrier_follows_the_process_group() -> None:
    for _ in range(2):
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        group = distributed.control_group()
        distributed.barrier()
        assert distributed.control_group() is group
        distributed.stop()


def test_restarts_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    assert distributed.restart_count() == 0
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    assert distributed.restart_count() == 2


def test_without_a_launcher_everything_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    assert distributed.is_first_to_say("x")
    assert distributed.is_first_to_say("x")


def test_ranks_say_the_same_thing_once(monkeypatch: pytest.MonkeyPatch) -> None:
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(server.port))
    assert [distributed.is_first_to_say(text) for text in ("x", "x", "y")] == [True, False, True]


@pytest.mark.skipif(sys.platform != "linux", reason="gloo decides for itself elsewhere")
def test_gloo_uses_the_network_in_which_the_master_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "chosen")
    distributed._show_gloo_the_network("127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] == "chosen"
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    distributed._show_gloo_the_network("no.such.host.invalid")
    assert "GLOO_SOCKET_IFNAME" not in os.environ
    distributed._show_gloo_the_network("127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a launcher tells its one process of two."""
    told = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)


def see_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> list[torch.device]:
    """Let torch see so many GPUs; what `set_device` is asked for is in the list."""
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    return current


@pytest.mark.usefixtures("launched")
def test_to_choose_a_device_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to = see_gpus(monkeypatch, 2)
    named = {text: str(distributed.choose_device(text)) for text in (None, "cpu", "cuda", "cuda:1")}
    assert named == {None: "cuda:0", "cpu": "cpu", "cuda": "cuda:0", "cuda:1": "cuda:1"}
    assert set_to == [] and not dist.is_initialized()
    see_gpus(monkeypatch, 0)
    assert distributed.choose_device().type == "cpu"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gpu", "'gpu' is not known; cpu, cuda"),
        ("cuda:2", "'cuda:2' was asked for, but the number of GPUs that torch sees is 2"),
    ],
)
def test_a_device_that_is_not_there_is_refused(text: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    see_gpus(monkeypatch, 2)
    with pytest.raises(ValueError, match=said):
        distributed.choose_device(text)


@pytest.mark.usefixtures("launched")
def test_a_rank_takes_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    joined: list[torch.device] = []
    monkeypatch.setattr(distributed, "_join", joined.append)
    set_to = see_gpus(monkeypatch, 2)
    assert [str(distributed.start(text)) for text in (None, "cuda")] == ["cuda:1", "cuda:1"]
    assert set_to == joined == [torch.device("cuda:1")] * 2
    with pytest.raises(ValueError, match="'cuda:1' would put all processes on one GPU"):
        distributed.start("cuda:1")
    see_gpus(monkeypatch, 1)
    with pytest.raises(ValueError, match=r"'cuda:1' was asked for.* torch sees is 1;.*--nproc_per_node"):
        distributed.start("cuda")


def test_doors_that_are_no_rank_refuse_a_device_in_one_line(
    repo_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["replay_step.py", "absent.pth", "-d", "gpu"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(repo_root / "tools" / "replay_step.py"), run_name="__main__")
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: device 'gpu' is not known; cpu, cuda and cuda:N are allowed\n"
