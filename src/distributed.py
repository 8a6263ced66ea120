"""Ranks of one run: start and end, what they agree on, and their seeds."""

import functools
import hashlib
import os
import random
import re
import secrets
import socket
import struct
import sys
import time
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, ProcessGroup, Store

TIMEOUT = timedelta(minutes=10)  # of a collective: ranks do the same work, so a longer wait is a hang
PATIENCE = timedelta(hours=12)  # of `barrier`: ranks wait there while the main one works alone
BEGUN = "begun"  # key in the launcher's store
LOST_PEER = re.compile(
    r"closed by peer|connection closed|connection reset|broken pipe|got 0 bytes|remote process exited"
    r"|socket timeout|timed out (waiting|after)|communicator was aborted",
    re.IGNORECASE,
)


def choose_device(text: str | None = None) -> torch.device:
    """The device that a user's text names; to ask changes nothing: no process group, no current GPU.

    Args:
        text: "cpu", "cuda" (this process's current GPU), "cuda:1"; None takes a GPU where there is one.

    Raises:
        ValueError: It names no device, or a GPU that is not there.
    """
    num_gpus = torch.cuda.device_count()
    chosen = text or ("cuda" if num_gpus else "cpu")
    if re.fullmatch(r"cpu|cuda(:\d+)?", chosen) is None:
        raise ValueError(f"device '{chosen}' is not known; cpu, cuda and cuda:N are allowed")
    device = torch.device(chosen)
    if device.type == "cuda" and (device.index or 0) >= num_gpus:
        raise ValueError(
            f"device '{chosen}' was asked for, but the number of GPUs that torch sees is {num_gpus}; take "
            "another, use -d cpu, or lower --nproc_per_node"
        )
    return torch.device("cuda", torch.cuda.current_device()) if chosen == "cuda" else device


def start(device: str | None = None) -> torch.device:
    """Join the process group that torchrun describes, if there is one, and make the GPU the current one.

    NCCL where the ranks have a GPU each, gloo otherwise. The GPU is chosen by LOCAL_RANK, so that several
    nodes work.

    Returns:
        The device of this process: what `choose_device` makes of `device`, but a GPU for each rank.

    Raises:
        ValueError: As of `choose_device`, or all ranks would share a GPU.
    """
    launched = "RANK" in os.environ and "WORLD_SIZE" in os.environ
    by_rank = launched and device in (None, "cuda") and torch.cuda.device_count() > 0
    chosen = choose_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if by_rank else device)
    if chosen.type == "cuda":
        if launched and not by_rank and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
            raise ValueError(f"device '{device}' would put all processes on one GPU; use -d cuda")
        torch.cuda.set_device(chosen)
    if launched and not dist.is_initialized():
        _join(chosen)
    return chosen


def _join(device: torch.device) -> None:
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if int(os.environ.get("LOCAL_WORLD_SIZE", world_size)) < world_size:
        _show_gloo_the_network(os.environ["MASTER_ADDR"])
    store: Store | None = _launcher_store(TIMEOUT)
    if store is not None:
        store = PrefixStore(f"attempt_{_agree_on_attempt(store, rank, world_size)}", store)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=store,
        rank=rank,
        world_size=world_size,
        timeout=TIMEOUT,
        device_id=device if device.type == "cuda" else None,
    )
    control_group()


def _show_gloo_the_network(master: str) -> None:
    """Let gloo, which would ask for the host's name, use the network in which `master` is seen.

    Many hosts call their own name 127.0.0.1 or 127.0.1.1, where no other node finds them. For Linux and
    IPv4; GLOO_SOCKET_IFNAME in the environment decides before this.
    """
    if sys.platform != "linux" or "GLOO_SOCKET_IFNAME" in os.environ:
        return
    import fcntl  # not on Windows

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((master, 9))  # sends nothing
        except OSError:
            return
        own_address = socket.inet_aton(probe.getsockname()[0])
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, 0x8915, struct.pack("256s", name.encode()))  # SIOCGIFADDR
            except OSError:  # it has no IPv4 address
                continue
            if answer[20:24] == own_address:
                os.environ["GLOO_SOCKET_IFNAME"] = name


def _launcher_store(timeout: timedelta) -> Store | None:
    """The key-value store that torchrun's agent serves to its workers, if it does."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    # torch documents TCPStore here without exporting it to type checkers
    store: Store = dist.TCPStore(address, port, timeout=timeout, wait_for_workers=False)  # type: ignore[attr-defined]
    return store


def _agree_on_attempt(store: Store, rank: int, world_size: int) -> str:
    """A name for this attempt that all its ranks share and that no earlier attempt had.

    After torchrun has restarted its workers, the store still holds what the dead ones wrote, and torch would
    connect to their addresses (pytorch 135712, 167288). A count of restarts does not tell attempts apart:
    each node has its own. So rank 0 draws a name and answers every token that it finds in the store; only
    the ranks that live now read the answers, for nobody but them knows their tokens.

    Raises:
        TimeoutError: Ranks did not come.
    """
    token = secrets.token_hex(8)
    if rank > 0:
        store.set(f"token_of/{rank}", token)
        attempt = store.get(f"answer_to/{token}").decode()
        store.set(f"joined/{attempt}/{rank}", "")
        return attempt
    absent = set(range(1, world_size))
    deadline = time.monotonic() + TIMEOUT.total_seconds()
    while absent:
        absent = {r for r in absent if not store.check([f"joined/{token}/{r}"])}
        for r in absent:
            if store.check([f"token_of/{r}"]):
                store.set(f"answer_to/{store.get(f'token_of/{r}').decode()}", token)
        if time.monotonic() > deadline:
            raise TimeoutError(f"ranks {sorted(absent)} did not join within {TIMEOUT}")
        time.sleep(0.02 if absent else 0)
    return token


@functools.lru_cache(maxsize=1)
def _gloo_group_beside(_world: ProcessGroup) -> ProcessGroup:
    group = dist.new_group(backend="gloo", timeout=PATIENCE)
    assert isinstance(group, ProcessGroup), "every rank is in the group"
    return group


def control_group() -> ProcessGroup:
    """A gloo group of all ranks beside the main one.

    CPU flags travel in it while the main one is busy, and waiting in it may take hours. The first call after
    the main group was made is a collective one.
    """
    world = dist.group.WORLD
    assert world is not None, "there is a process group"
    return _gloo_group_beside(world)


def stop() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        _gloo_group_beside.cache_clear()
        dist.destroy_process_group()


def restart_count() -> int:
    """How often torchrun has restarted the workers of this node; 0 without torchrun."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def has_begun() -> bool:
    """Whether an earlier attempt of this launch came as far as `mark_begun`; the same on all ranks.

    A collective call. Nodes count restarts each for itself, so the launcher's store is asked, by rank 0.
    """
    begun = False
    if is_main():
        store = _launcher_store(TIMEOUT)
        begun = restart_count() > 0 if store is None else store.check([BEGUN])
    return bool(broadcast_int(int(begun)))


def mark_begun() -> None:
    """Let later attempts of this launch know that this one has begun its work; called by rank 0."""
    store = _launcher_store(TIMEOUT)
    if store is not None:
        store.set(BEGUN, "")


def lost_peer(error: BaseException) -> str | None:
    """What `error` says of a rank that left a collective of ours; None where it says no such thing."""
    if not isinstance(error, RuntimeError) or world_size() == 1 or LOST_PEER.search(str(error)) is None:
        return None
    return re.sub(r"^\[\S+\] ", "", str(error).splitlines()[0]).split(". ")[0]


def is_first_to_say(text: str) -> bool:
    """Whether no other rank has asked this for the same text since the workers started.

    Ranks that meet one fault together so tell it once. Works before `start`, too.
    """
    digest = hashlib.sha256(text.encode()).hexdigest()
    try:
        store = _launcher_store(timedelta(seconds=2))
        return store is None or store.add(f"said/{restart_count()}/{digest}", 1) == 1
    except RuntimeError:  # the launcher has gone: better twice than never
        return True


def is_distributed() -> bool:
    """Whether this process is one of a group (of one or more)."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number in the run, 0 when alone."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of processes in the run."""
    return dist.get_world_size() if is_distributed() else 1


def is_main() -> bool:
    """Whether this process writes files and speaks."""
    return rank() == 0


def barrier() -> None:
    """Wait for every rank, for hours while one has long work to do alone."""
    if is_distributed():
        dist.barrier(control_group())


def mean_over_ranks(values: Tensor) -> Tensor:
    """The mean of `values` (any shape, floating) over all ranks, without gradient."""
    if world_size() == 1:
        return values
    values = values.detach().clone()
    dist.all_reduce(values)
    return values / world_size()


def gather_rows(rows: Tensor) -> list[Tensor]:
    """`rows` [N_r, ...] of every rank in rank order; N_r may differ between ranks and may be 0.

    Tensors are padded to the longest and gathered in one collective: nothing is pickled.
    """
    if world_size() == 1:
        return [rows]
    count = torch.tensor([rows.shape[0]], device=rows.device)
    counts = [torch.zeros_like(count) for _ in range(world_size())]
    dist.all_gather(counts, count)
    longest = max(int(c) for c in counts)
    padded = rows.new_zeros((longest, *rows.shape[1:]))
    padded[: rows.shape[0]] = rows
    gathered = [torch.empty_like(padded) for _ in range(world_size())]
    dist.all_gather(gathered, padded)
    return [g[: int(c)] for g, c in zip(gathered, counts, strict=True)]


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, alike on every rank: all build the same model.

    What ranks must draw apart, a step's noise and a picture's transforms, is seeded where it is drawn.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def broadcast_int(value: int) -> int:
    """Rank 0's `value`, on every rank."""
    if world_size() == 1:
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    shared = torch.tensor([value], device=device)
    dist.broadcast(shared, 0)
    return int(shared)
