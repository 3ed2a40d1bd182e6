"""The notebooks of `examples/`: one in English and one in Chinese with the same code, which runs from top to bottom."""

import nbformat
import pytest
from nbclient import NotebookClient
from tests.warm_python import ROOT


ENGLISH, CHINESE = (ROOT / "examples" / name for name in ("notebook.ipynb", "notebook_zh.ipynb"))


def read_cells(path, kind):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == kind]


def test_both_languages_have_the_same_code_and_outputs():
    english, chinese = read_cells(ENGLISH, "code"), read_cells(CHINESE, "code")
    assert [cell.source for cell in english] == [cell.source for cell in chinese]
    assert [cell.outputs for cell in english] == [cell.outputs for cell in chinese]
    assert len(read_cells(ENGLISH, "markdown")) == len(read_cells(CHINESE, "markdown"))


@pytest.mark.parametrize("path", [ENGLISH, CHINESE], ids=lambda p: p.stem)
def test_a_notebook_is_small_shows_what_its_cells_print_and_names_no_folder_of_its_machine(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < 200_000
    assert "/home/" not in text and "/root/" not in text and "site-packages" not in text and str(ROOT) not in text
    outputs = [output for cell in read_cells(path, "code") for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 8
    assert not [output for output in outputs if output.output_type == "error"]


@pytest.mark.parametrize(
    "path", [ENGLISH, pytest.param(CHINESE, marks=pytest.mark.slow)], ids=lambda p: getattr(p, "stem", "")
)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    monkeypatch.setenv("NOTEBOOK_SIZE", "tiny")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, 4)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert (tmp_path / "runs/notebook/embedded/grpo-int8/model.onnx").is_file()
