"""Workers that torchrun restarts in place, and ranks on several nodes."""

import socket

import pytest
from distributed_launch import TIMEOUT_S, launch

pytestmark = pytest.mark.dist


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def rendezvous(kind: str) -> list[str]:
    port = free_port()
    return {
        "standalone": ["--standalone"],
        "static": [f"--master-port={port}"],
        "c10d": ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}"],
    }[kind]


def restart(kind: str, fault: str, rank: int) -> None:
    options = [*rendezvous(kind), "--nproc-per-node=2", "--max-restarts=1"]
    out, err = launch(options, fault=fault, rank=str(rank)).communicate(timeout=TIMEOUT_S)
    assert "rank 1 local 1 restarts 1" in out, err
    for each in (0, 1):
        assert f"rank {each} finished with 3" in out, err


@pytest.mark.parametrize(("kind", "fault", "rank"), [("standalone", "kill", 0), ("static", "kill", 1)])
def test_workers_restarted_in_place_go_on(kind: str, fault: str, rank: int) -> None:
    restart(kind, fault, rank)


@pytest.mark.slow
@pytest.mark.parametrize("repetition", range(20))
def test_every_restart_succeeds(repetition: int) -> None:
    kind = ("standalone", "static", "c10d")[repetition % 3]
    restart(kind, ("kill", "error")[repetition % 2], repetition // 2 % 2)


def two_nodes(*options: str, fault: str = "none", rank: str = "0") -> str:
    """All that two nodes of one process each say on stdout."""
    port = free_port()
    nodes = [
        launch(
            ["--nnodes=2", f"--node-rank={n}", "--master-addr=127.0.0.1", f"--master-port={port}", *options],
            fault=fault,
            rank=rank,
        )
        for n in (0, 1)
    ]
    return "".join(node.communicate(timeout=TIMEOUT_S)[0] for node in nodes)


def test_two_nodes_are_one_run() -> None:
    out = two_nodes("--nproc-per-node=1")
    for rank in (0, 1):
        assert f"rank {rank} local 0 restarts 0" in out
        assert f"rank {rank} finished with 3" in out


def test_two_nodes_restart_together() -> None:
    out = two_nodes("--nproc-per-node=1", "--max-restarts=1", fault="kill", rank="1")
    for rank in (0, 1):
        assert f"rank {rank} local 0 restarts 1" in out
        assert f"rank {rank} finished with 3" in out
