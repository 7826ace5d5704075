"""What the documentation shows runs: examples in docstrings, and the Python blocks of README.md and docs/."""

import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import Protocol

import pytest

import rnncore

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [path for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))) if path.is_file()]

MODULES = [rnncore] + [
    importlib.import_module(found.name)
    for found in pkgutil.walk_packages(rnncore.__path__, "rnncore.")
    if not found.name.rpartition(".")[2].startswith("_")
]


def shows_itself(thing) -> bool:
    """Whether a public object needs no example: constants, results shown where they are returned, protocols."""
    if inspect.isclass(thing):
        return hasattr(thing, "_fields") or Protocol in thing.__bases__
    return not inspect.isfunction(thing)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_examples_in_docstrings(module):
    result = doctest.testmod(module)
    assert result.failed == 0  # doctest has printed them


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_everything_public_has_an_example(module):
    assert hasattr(module, "__all__"), "says what is public"
    public = {name: getattr(module, name) for name in module.__all__}
    shown = [name for name, thing in public.items() if shows_itself(thing) or ">>> " in (inspect.getdoc(thing) or "")]
    assert [name for name in public if name not in shown] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_python_blocks_of_documents(path, tmp_path, monkeypatch):
    """All blocks of a document in turn, as a reader would type them into one session."""
    sybil = pytest.importorskip("sybil")
    markdown = pytest.importorskip("sybil.parsers.markdown")
    monkeypatch.chdir(tmp_path)  # for what they write
    parsers = [markdown.PythonCodeBlockParser(), markdown.SkipParser()]
    document = sybil.Sybil(parsers=parsers).parse(path)
    for example in document.examples():
        example.evaluate()
