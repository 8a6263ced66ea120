import json
import signal

import pytest

from src.setup.findings import Finding, Outcome, attempt, tell

FINDINGS = [
    Finding("one", "ok", "as it should be", ""),
    Finding("two", "warn", "first line\nsecond line", "do this"),
]


def test_a_table_with_remedies():
    said: list[str] = []
    assert tell(FINDINGS, said.append, as_json=False) == 0
    rows = "\n".join(said).splitlines()
    assert rows[0].split() == ["ok", "one", "as", "it", "should", "be"]
    column = rows[0].index("as it")
    assert [row[column:] for row in rows[1:4]] == ["first line", "second line", "-> do this"]
    assert rows[-1] == "1 ok, 1 warn, 0 fail"


def test_each_row_is_told_as_it_comes():
    said: list[str] = []

    def slowly():
        yield FINDINGS[0]
        assert len(said) == 1
        yield FINDINGS[1]

    tell(slowly(), said.append, as_json=False)
    assert len(said) == 3


def test_one_json_object():
    said: list[str] = []
    failed = Finding("three", "fail", "broken", "mend it")
    assert tell([*FINDINGS, failed], said.append, as_json=True) == 1
    (text,) = said
    told = json.loads(text)
    assert told["checks"][2] == {"check": "three", "status": "fail", "told": "broken", "remedy": "mend it"}
    assert (told["ready"], told["ok"], told["warn"], told["fail"]) == (False, 1, 1, 1)


class OddError(Exception):
    pass


def test_an_outcome_gets_its_name():
    finding = attempt("sum", lambda a, b: Outcome("ok", str(a + b)), 1, 2)
    assert finding == Finding("sum", "ok", "3", "")


@pytest.mark.parametrize("error", [ValueError("no such knob"), OddError("deep inside"), MemoryError()])
def test_an_error_of_any_kind_is_a_finding(error):
    def work() -> Outcome:
        raise error

    finding = attempt("work", work)
    assert finding.status == "fail" and str(error) in finding.told
    assert ("report" in finding.remedy) == (not isinstance(error, ValueError))


def test_what_is_no_error_ends_the_program():
    def work() -> Outcome:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt("work", work)


def test_an_interrupt_does_not_wait_for_the_work():
    went_on = []

    def work() -> Outcome:
        signal.raise_signal(signal.SIGINT)
        went_on.append(True)
        return Outcome("ok", "")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            attempt("work", work)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not went_on
