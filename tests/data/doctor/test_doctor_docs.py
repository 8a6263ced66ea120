import re

from src.data.doctor import RULES


def test_the_page_lists_every_finding_as_it_is(repo_root):
    text = (repo_root / "docs" / "doctor.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \| (\w+) \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    assert {code: tuple(rest) for code, *rest in rows} == {code: tuple(rule) for code, rule in RULES.items()}
    assert len(rows) == len(RULES)
