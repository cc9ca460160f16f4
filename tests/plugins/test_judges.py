"""The counts of the frameworks' suites in the output."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.plugins import judges

HERE = Path(__file__).parent


@pytest.mark.parametrize("file", judges.SUITES)
def test_a_suite_is_there(file: str) -> None:
    text, suite = (HERE / file).read_text(), judges.SUITES[file]
    assert f"def {suite.fixture}(" in text
    assert all(f'"{one}"' in text for one in suite.theirs)


def test_counts_and_reasons() -> None:
    def report(whose: str, **more: Any) -> Any:
        return SimpleNamespace(user_properties=[(judges.PROPERTY, ("Its store", whose))], longrepr="", **more)

    other = SimpleNamespace(user_properties=[(judges.PROPERTY, "a suite: 3 passed"), ("other", "x")])
    stats = {
        "passed": [report("ours"), report("ours"), report("its own"), other],
        "": [report("ours")],  # set up and torn down
    }
    passed = "Its store: 2 passed on ours, 1 passed on its own"
    assert judges.lines(stats) == [f"{passed}; 0 skipped", "a suite: 3 passed"]
    known = [report("its own", wasxfail="it loses the ids")]
    assert judges.lines({**stats, "xfailed": known})[0] == f"{passed}, 1 xfailed on its own; it loses the ids"
    reports = [report("ours")]
    reports[0].longrepr = ("file", 3, "Skipped: no server")
    (line,) = judges.lines({"skipped": reports})
    assert line == "Its store: 1 skipped on ours; Skipped: no server"
    assert judges.lines({}) == []


def test_which_tests_are_of_a_suite() -> None:
    def item(file: str, **params: str) -> Any:
        return SimpleNamespace(path=HERE / file, callspec=SimpleNamespace(params=params), user_properties=[])

    items = [
        item("ag2/test_storage.py", open_storage="ag2"),
        item("ag2/test_storage.py", open_storage="sqlite"),
        item("ag2/test_storage.py", log="sqlite"),
        item("langchain/test_history.py", log="sqlite"),
        SimpleNamespace(path=HERE / "ag2/test_storage.py", user_properties=[]),
    ]
    judges.mark(items)
    assert [one.user_properties for one in items] == [
        [(judges.PROPERTY, ("AG2, MemoryStorage", "its own"))],
        [(judges.PROPERTY, ("AG2, MemoryStorage", "ours"))],
        *([], [], []),
    ]
