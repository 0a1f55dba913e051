"""Runs docs/tour.ipynb in an empty directory and stores its outputs in the file.

python scripts/run_notebook.py

It needs the extra `notebook`: pip install -e '.[notebook]'.
"""

import pathlib
import tempfile

import nbclient
import nbformat

TOUR = pathlib.Path(__file__).parents[1] / "docs" / "tour.ipynb"


def run(path: pathlib.Path, directory: str | pathlib.Path) -> nbformat.NotebookNode:
    """Returns a notebook with the outputs of its cells, run in a directory.

    Raises:
        CellExecutionError: a cell failed; the message has its code and traceback.
        CellTimeoutError: a cell took more than ten minutes.
    """
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(directory)}}
    client = nbclient.NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources=resources,
        record_timing=False,
        coalesce_streams=True,
    )
    return client.execute()


def main() -> None:
    """Runs the notebook and stores it, without what depends on the machine."""
    with tempfile.TemporaryDirectory() as directory:
        notebook = run(TOUR, directory)
    notebook.metadata.language_info = {"name": "python"}  # else with Python's version
    nbformat.write(notebook, TOUR)


if __name__ == "__main__":
    main()
