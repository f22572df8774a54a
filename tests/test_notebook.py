"""The notebook runs from the first cell to the last."""

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebooks" / "first_look.ipynb"

SMALL = "INSTANTS, STEPS, SIZE = 256, 2, 32\nPEOPLE = 3"
"""What the first cell of code says in the test."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_notebook_runs_and_prints_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("MCSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    codes[0].source = SMALL
    nbclient.NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = [text for cell in codes for output in cell.outputs if (text := output.get("text"))]
    assert any("moments for testing" in text for text in printed)
    assert any(text.startswith("MPJPE") and "Hit@1" in text for text in printed)


def test_the_notebook_is_stored_without_results() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert '"outputs": []' in text
    assert '"output_type"' not in text
