import signal

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


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    def main() -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        door.run(main)
