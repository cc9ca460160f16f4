"""Code and pages use the field's terms: phrases of an older private vocabulary do not come back."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

ROOT = Path(__file__).parents[2]
PHRASES = re.compile(r"(?i:accepted (is|are)\b|\b(so many|somebody|nobody|leftovers)\b)|left_out")
FOLDERS = ("agent_stores", "providers", "samples", "benchmarks", "docs")


def test_no_phrase_of_the_old_vocabulary() -> None:
    files = [
        file
        for folder in FOLDERS
        for file in (ROOT / folder).rglob("*")
        if file.suffix in (".py", ".md", ".lua")
    ]
    assert len(files) > 200
    files += [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in files
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if PHRASES.search(line)
    ]
    assert not found, "\n".join(found)


def test_no_phrase_of_the_old_vocabulary_in_tests() -> None:
    """Only text between quotes is exempt: operating systems have a user that is named so."""
    files = list((ROOT / "tests").rglob("*.py"))
    assert len(files) > 100
    found = [
        f"{file.relative_to(ROOT)}:{token.start[0]}: {token.string.strip()}"
        for file in files
        for token in tokenize.generate_tokens(io.StringIO(file.read_text()).readline)
        if token.type == tokenize.COMMENT
        or (token.type == tokenize.NAME)
        or (token.type == tokenize.STRING and '"""' in token.string)
        if PHRASES.search(token.string if token.type != tokenize.NAME else token.string.replace("_", " "))
    ]
    assert not found, "\n".join(found)


def test_files_of_the_library_are_small() -> None:
    files = [*(ROOT / "agent_stores").rglob("*.py"), *(ROOT / "providers").rglob("*.py")]
    long = {str(file): count for file in files if (count := len(file.read_text().splitlines())) > 400}
    assert not long
