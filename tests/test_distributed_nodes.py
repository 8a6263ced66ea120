"""Workers that torchrun restarts in place, and ranks on several nodes."""

import os
import socket
import subprocess
import sys

import pytest
from distributed_launch import TIMEOUT_S, TOY, launch

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


NETWORKS = """
ip link set lo up
unshare -n sleep 300 & other=$!
for wait in 1 2 3 4 5 6 7 8 9 10; do  # until it has a network of its own
    [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/$$/ns/net)" ] && break; sleep 0.2
done
ip link add near type veth peer name far netns $other
ip addr add 10.9.0.1/24 dev near && ip link set near up
nsenter -t $other -n sh -c "ip link set lo up; ip addr add 10.9.0.2/24 dev far; ip link set far up"
node="$PYTHON -m torch.distributed.run --nnodes=2 --nproc-per-node=1 --master-addr=10.9.0.1 --max-restarts=1"
nsenter -t $other -n $node --node-rank=1 "$TOY" kill 1 3 &
$node --node-rank=0 "$TOY" kill 1 3
wait $!; kill $other
"""


@pytest.mark.slow
def test_two_networks_are_one_run() -> None:
    if subprocess.run(["unshare", "-rn", "ip", "link"], capture_output=True, check=False).returncode:
        pytest.skip("no network namespace may be made here")
    run = subprocess.run(
        ["unshare", "-rn", "sh", "-c", NETWORKS],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, "TOY": str(TOY)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    for rank in (0, 1):
        assert f"rank {rank} local 0 restarts 1" in run.stdout, run.stderr
        assert f"rank {rank} finished with 3" in run.stdout, run.stderr
