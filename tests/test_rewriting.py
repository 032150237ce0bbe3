"""Tests are compiled ahead of the workers without being run."""

from __future__ import annotations

from tests.rewriting import rewrite_ahead

ASSERTION = "open('run', 'w')\ndef test_it():\n    assert 1 == 2\n"


def test_what_is_asked_for_is_compiled_and_not_run(tmp_path, monkeypatch, pytestconfig):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    monkeypatch.setattr(pytestconfig, "args", [str(tmp_path)])
    (tmp_path / "test_one.py").write_text(ASSERTION)
    (tmp_path / "test_broken.py").write_text("def test_it(:\n")
    (tmp_path / "other.py").write_text(ASSERTION)

    rewrite_ahead(pytestconfig, 2)

    (compiled,) = (tmp_path / "__pycache__").iterdir()
    assert compiled.name.startswith("test_one.")
    assert b"@pytest_ar" in compiled.read_bytes()
    assert not (tmp_path / "run").exists()
