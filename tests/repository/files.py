"""The repository's files, for the tests of what it says about itself."""

import re
import subprocess
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

TEXT = {".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".in", ".html", ".js", ".css", ".json", ".sh", ".cfg", ".ipynb"}


@cache
def tracked() -> tuple[Path, ...]:
    """Return every file of the project: what git has, or what is there when this is no clone."""
    done = subprocess.run(["git", "-C", str(REPOSITORY), "ls-files", "-z"], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        found = [REPOSITORY / name for name in done.stdout.split("\0") if name]
    else:
        skip = {".venv", ".tools", ".cache", "node_modules", "__pycache__", "_build", "_generated"}
        found = [path for path in REPOSITORY.rglob("*") if not skip & set(path.relative_to(REPOSITORY).parts)]
    return tuple(sorted(path for path in found if path.is_file()))


def files(*folders: str, suffix: str = "") -> list[Path]:
    """Return the project's files below `folders` whose names end with `suffix`."""
    roots = [REPOSITORY / folder for folder in folders] or [REPOSITORY]
    return [path for path in tracked() if path.name.endswith(suffix) and any(path.is_relative_to(r) for r in roots)]


def name_of(path: Path) -> str:
    """Return `path` as it is called in the repository."""
    return str(path.relative_to(REPOSITORY))


def code_blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of `language` in a Markdown text."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
