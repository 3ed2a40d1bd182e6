"""What the package takes from other libraries without their promise: all of it is listed, and all of it is there."""

import ast
import importlib
import inspect
import re
import types
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import pytest
from tests.borrowed import ATTRIBUTES, BORROWED, DOCUMENTED, IMPORTS, LIBRARIES, PRIVATE, Borrowed

import small_doge


PACKAGE = Path(small_doge.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
# Python's own, whose names begin with an underscore for another reason.
PYTHON = {"_replace", "_exit", "_asdict", "_fields"}


def is_private(name: object) -> bool:
    return isinstance(name, str) and bool(re.match(r"_[^_]", name))


def find(dotted: str) -> object:
    """A module, class or function by its full name; names where the way ends."""
    head, *rest = dotted.split(".")
    found: object = importlib.import_module(head)
    for number, name in enumerate(rest, 1):
        try:
            found = getattr(found, name, None) or importlib.import_module(".".join([head, *rest[:number]]))
        except ImportError:
            pytest.fail(f"{dotted}: there is no {name} in {'.'.join([head, *rest[: number - 1]])} any more")
    return found


def find_in(module: str, name: str) -> object:
    """What `from module import name` gives, or None."""
    try:
        return getattr(importlib.import_module(module), name, None) or importlib.import_module(f"{module}.{name}")
    except ImportError:
        return None


@lru_cache
def attributes_of(owner: type) -> frozenset[str]:
    """What a class has, and what its own methods set on its objects."""
    tree = parse(inspect.getsourcefile(owner)) if owner.__module__ != "builtins" else ast.Module([], [])
    body = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == owner.__name__]
    stored = {
        part.attr
        for node in body
        for part in ast.walk(node)
        if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store) and ast.unparse(part.value) == "self"
    }
    return frozenset({*vars(owner), *getattr(owner, "__annotations__", {}), *stored})


@lru_cache
def parse(file: str) -> ast.Module:
    return ast.parse(Path(file).read_text(encoding="utf-8"))


def has_attribute(owner: type, name: str) -> bool:
    return any(name in attributes_of(base) for base in owner.__mro__ if base.__module__.split(".")[0] in LIBRARIES)


@pytest.mark.parametrize("entry", BORROWED, ids=lambda entry: f"{entry.owner}.{entry.name}")
def test_what_is_borrowed_is_there(entry: Borrowed):
    owner, full = find(entry.owner), f"{entry.owner}.{entry.name}"
    if inspect.isclass(owner):
        assert has_attribute(owner, entry.name), (
            f"{full} is gone; the package needs it in {entry.used_in}: {entry.why}"
        )
    else:
        find(full)
    if entry.parameters:
        there = inspect.signature(inspect.unwrap(getattr(owner, entry.name))).parameters
        lost = [name for name in entry.parameters if name not in there]
        assert not lost, f"{full} has lost {', '.join(lost)} and takes {', '.join(there)}; see {entry.used_in}"


def our_names() -> set[str]:
    """What the package defines itself: functions, classes, variables, and attributes that its objects set."""
    names = set()
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Assign) or (isinstance(node, ast.AnnAssign) and node.value is not None):
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    for part in ast.walk(target):
                        if isinstance(part, ast.Name):
                            names.add(part.id)
                        elif isinstance(part, ast.Attribute) and ast.unparse(part.value) == "self":
                            names.add(part.attr)
    return names


OURS = our_names()


def our_classes() -> dict[type, ast.ClassDef]:
    """Classes of the package at the top of its modules, with their code."""
    found = {}
    for path, tree in TREES.items():
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                found[getattr(importlib.import_module(name), node.name)] = node
    return found


def foreign_bases(ours: type, classes: Iterable[type]) -> set[type]:
    """What a class inherits of the libraries, itself or beside others: a mixin meets them in its subclasses."""
    bases = {base for other in classes if ours in other.__mro__ for base in other.__mro__}
    return {base for base in bases if base.__module__.split(".")[0] in LIBRARIES}


def private_uses(path: Path) -> Iterator[tuple[int, str]]:
    """Private names of others, by line: attributes, arguments, names in strings, imports."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in OURS:
            yield node.lineno, node.attr
        elif isinstance(node, ast.keyword) and is_private(node.arg):
            yield node.value.lineno, node.arg
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "hasattr", "delattr"):
            name = getattr(node.args[1], "value", None)
            if is_private(name) and name not in OURS:
                yield node.lineno, name
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for part in [*node.module.split("."), *(alias.name for alias in node.names)]:
                if is_private(part):
                    yield node.lineno, part
        elif isinstance(node, ast.Import):
            for part in [part for alias in node.names for part in alias.name.split(".")]:
                if is_private(part):
                    yield node.lineno, part


def overrides() -> Iterator[tuple[str, str]]:
    """Private names of a library that classes of the package define, assign or read as their own, with the class."""
    classes = our_classes()
    for ours, body in classes.items():
        names = {node.name for node in body.body if isinstance(node, ast.FunctionDef)}
        names |= {part.id for node in body.body for part in _targets(node) if isinstance(part, ast.Name)}
        for node in ast.walk(body):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "super()"):
                names.add(node.attr)
        bases = foreign_bases(ours, classes)
        for name in filter(is_private, names):
            if any(name in attributes_of(base) for base in bases):
                yield f"{ours.__module__}.{ours.__name__}", name


def _targets(node: ast.stmt) -> list[ast.expr]:
    return node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []


def test_every_private_name_of_others_is_listed():
    listed = {entry.name for entry in PRIVATE} | PYTHON
    uses = {
        f"{path.relative_to(PACKAGE)}:{line}: {name}"
        for path in FILES
        for line, name in private_uses(path)
        if name not in listed
    }
    again = {f"{where}: {name}" for where, name in overrides() if name not in listed}
    assert not uses | again, "not in tests/borrowed.py:\n" + "\n".join(sorted(uses | again))


def test_every_attribute_that_a_trainer_brings_is_listed():
    listed = {entry.name for entry in (*ATTRIBUTES, *PRIVATE)}
    classes = our_classes()
    for ours, body in classes.items():
        if ours.__module__.startswith("small_doge.trainer") and foreign_bases(ours, classes):
            bare = {node.target.id for node in body.body if isinstance(node, ast.AnnAssign) and node.value is None}
            assert bare <= listed, f"{ours.__name__}: {', '.join(bare - listed)} not in tests/borrowed.py"


def deep_imports(path: Path) -> Iterator[tuple[int, str, str]]:
    """Imports from within a library, by line: module and name; a module counts by the package that holds it."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module.split(".")[0] in LIBRARIES:
            for alias in node.names:
                is_module = isinstance(find_in(node.module, alias.name), types.ModuleType)
                if "." in node.module or is_module:
                    yield node.lineno, node.module, alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if "." in alias.name and alias.name.split(".")[0] in LIBRARIES:
                    yield node.lineno, *alias.name.rpartition(".")[::2]


def is_listed(module: str, name: str) -> bool:
    """Whether a name is listed itself, or its module is."""
    if any(module == known or module.startswith(f"{known}.") for known in DOCUMENTED):
        return True
    return any(
        (entry.owner, entry.name) == (module, name) or f"{module}.{name}.".startswith(f"{entry.owner}.{entry.name}.")
        for entry in IMPORTS
    )


def test_every_import_from_within_a_library_is_listed_and_as_near_to_its_top_as_can_be():
    wrong = []
    for path in FILES:
        for line, module, name in deep_imports(path):
            where, parts = f"{path.relative_to(PACKAGE)}:{line}", module.split(".")
            if not is_listed(module, name):
                wrong.append(f"{where}: {module}.{name} is not in tests/borrowed.py")
            found = find_in(module, name)
            if isinstance(found, types.ModuleType):
                continue
            uppers = [".".join(parts[:count]) for count in range(1, len(parts))] if found is not None else []
            nearer = [upper for upper in uppers if find_in(upper, name) is found]
            wrong += [f"{where}: {name} can be imported from {upper}" for upper in nearer]
    assert not wrong, "\n".join(wrong)


def test_the_list_names_nothing_that_is_no_longer_used():
    text = {path: path.read_text(encoding="utf-8") for path in FILES}
    for entry in BORROWED:
        assert entry.why and entry.used_in, entry
        if entry in (*PRIVATE, *ATTRIBUTES, *IMPORTS):
            files = [PACKAGE / name for name in entry.used_in.split(", ")]
            found = [path for path in FILES if any(path == file or file in path.parents for file in files)]
            assert any(re.search(rf"\b{entry.name}\b", text[path]) for path in found), f"{entry.name}: {entry.used_in}"
