"""Run a notebook with the Python that runs this, and write it with its outputs. Usage: run_notebook.py IN OUT.

Started by the tests in the environment's Python; it is no test itself.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def main(source: str, target: str) -> None:
    """Run the notebook at `source` in the current folder and write it to `target`."""
    notebook = nbformat.read(source, as_version=4)
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(Path.cwd())}}
    ).execute()
    nbformat.write(notebook, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
