"""The public surface: few names, sorted, all exposed on purpose, all documented."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import guardrail

PACKAGE = Path(guardrail.__file__).parent

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def exposed(module: ModuleType) -> list[str]:
    """Return the names a reader of the module can see that are not modules themselves."""
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    )


def definitions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """Yield the public classes, functions and methods of a module; what functions hold is not."""
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from definitions(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.If | ast.Try):
            yield from definitions([*node.body, *node.orelse], prefix)


def undocumented(source: str) -> list[str]:
    """Return the public names of a source that lack a docstring; `<module>` is the file's own."""
    tree = ast.parse(source)
    missing = [] if ast.get_docstring(tree) else ["<module>"]
    for name, node in definitions(tree.body):
        decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
        another = any(name.endswith((".setter", ".deleter", "overload")) for name in decorators)
        if not another and not ast.get_docstring(node):
            missing.append(name)
    return missing


def test_what_the_package_exposes_is_what_it_lists():
    assert guardrail.__all__ == exposed(guardrail)


@pytest.mark.parametrize("name", guardrail.__all__)
def test_every_exposed_name_is_documented(name):
    value = getattr(guardrail, name)

    assert isinstance(value, str) or inspect.getdoc(value)


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_every_public_definition_is_documented(path):
    assert undocumented(path.read_text("utf-8")) == []


def test_an_unlisted_name_is_seen():
    module = ModuleType("sample", "A sample.")
    exec("from __future__ import annotations\nimport enum\nOne = 1\n_two = 2", vars(module))

    assert exposed(module) == ["One"]


def test_each_kind_of_undocumented_name_is_found():
    source = '''
from typing import overload

def plain(): ...
async def later(): ...
def documented():
    """Is documented."""
    def inside(): ...
def _private(): ...
class Bare:
    def method(self): ...
    def __len__(self): ...
    @property
    def size(self): ...
    @size.setter
    def size(self, value): ...
    class Inner: ...
class _Hidden:
    def method(self): ...
@overload
def shaped(a: int): ...
if True:
    def chosen(): ...
'''

    assert undocumented(source) == [
        "<module>",
        "plain",
        "later",
        "Bare",
        "Bare.method",
        "Bare.size",
        "Bare.Inner",
        "chosen",
    ]
