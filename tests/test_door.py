import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from src import door


def test_a_fault_of_the_user_is_one_paragraph_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise ValueError("no such file: x.jpg")

    assert door.run(main) == 2
    assert capsys.readouterr().err == "error: no such file: x.jpg\n"


def test_success_and_interruption(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise KeyboardInterrupt

    assert door.run(lambda: None) == 0
    assert door.run(main) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_was_asked_to_stop(number: int, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise door.Interrupted(number)

    assert door.run(main) == status
    assert capsys.readouterr().err == f"stopped by {signal.Signals(number).name}\n"


def test_a_door_that_is_told_to_stop_need_not_wait_for_its_threads(repo_root: Path) -> None:
    code = (
        "import sys, threading\nfrom src import door\ndef main():\n"
        "    threading.Thread(target=threading.Event().wait).start()\n    raise door.Interrupted(15)\n"
        "sys.exit(door.run(main, waits_for_threads=False))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=repo_root, check=False, capture_output=True, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (143, b"stopped by SIGTERM\n")


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    def main() -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        door.run(main)


def test_where_no_pipe_can_be_asked_a_door_ends_as_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(select, "poll")  # as on Windows
    monkeypatch.setattr(sys.stdout, "fileno", lambda: 1)

    def main() -> None:
        raise ValueError("a is 3")

    assert door.run(main) == 2
    assert capsys.readouterr().err == "error: a is 3\n"


@pytest.mark.parametrize(
    ("then", "unbuffered", "status"), [("", "", 141), ("", "1", 141), ("sys.exit(1)", "", 1)]
)
def test_an_output_that_nobody_reads_ends_quietly(
    repo_root: Path, then: str, unbuffered: str, status: int
) -> None:
    code = (
        "import sys\nfrom src import door\ndef main():\n"
        f"    sys.stdin.read()\n    print('a')\n    {then}\nsys.exit(door.run(main))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=repo_root,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.stdin.close()  # from here on it writes
        assert (process.stderr.read(), process.wait()) == (b"", status)
