"""The shape of the package: who may import whom, and how long things may get.

Each rule is a function from the package's folder to the list of its breaches. Every rule is held against Plait
itself, and against small planted packages, so that a rule that sees nothing is itself seen.
"""

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from textwrap import indent
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "plait"

SHARED = ["errors", "allocator", "cores", "config", "protocol", "wire", "gguf", "formats", "log", "metrics", "disk"]
BACK = ["bitnet", "llama", "engine", "text", "constrain", "worker"]
FRONT = ["fleet", "web", "dialects", "gateway"]
ENTRIES = ["ray", "cli", "__init__", "__main__"]
ORDER = [*SHARED, *BACK, *FRONT, *ENTRIES]
PEERS = [{"bitnet", "llama", "engine", "text", "constrain"}, {"fleet", "web"}]

LONGEST_FILE = 500
LONGEST_FUNCTION = 60


class Import(NamedTuple):
    """One imported name, wherever in the file it stands."""

    name: str
    line: int
    is_relative: bool


class Module(NamedTuple):
    """One source file; its unit is the file or folder right below the package that it belongs to."""

    path: Path
    unit: str
    text: str
    tree: ast.Module
    imports: list[Import]

    def at(self, line: int, problem: str) -> str:
        return f"{self.path}:{line}: {problem}"


def imported(tree: ast.Module) -> Iterator[Import]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (Import(alias.name, node.lineno, False) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                for alias in names:
                    yield Import(f"{module or ''}.{alias.name}", node.lineno, level > 0)


@cache
def modules(root: Path) -> list[Module]:
    found = []
    for path in sorted(root.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text, str(path))
        unit = path.relative_to(root).with_suffix("").parts[0]
        found.append(Module(path, unit, text, tree, list(imported(tree))))
    return found


def borders(root: Path) -> Iterator[tuple[Module, Import, str]]:
    """Every import that crosses from one unit of ours into another, and the unit that it reaches."""
    for module in modules(root):
        for name in module.imports:
            package, _, rest = name.name.partition(".")
            unit = rest.partition(".")[0]
            if package == root.name and unit in ORDER and unit != module.unit:
                yield module, name, unit


def outsiders(root: Path, *names: str) -> Iterator[tuple[Module, Import]]:
    """Every import of one of these packages of others."""
    for module in modules(root):
        for name in module.imports:
            if not name.is_relative and name.name.partition(".")[0] in names:
                yield module, name


def units_have_a_place(root: Path) -> list[str]:
    return [m.at(1, f"{m.unit} has no place in the order") for m in modules(root) if m.unit not in ORDER]


def imports_point_left(root: Path) -> list[str]:
    return [
        module.at(name.line, f"{module.unit} may not import {unit}, which stands to its right")
        for module, name, unit in borders(root)
        if module.unit in ORDER and ORDER.index(unit) > ORDER.index(module.unit)
    ]


def peers_stay_apart(root: Path) -> list[str]:
    return [
        module.at(name.line, f"{module.unit} and {unit} do not know each other")
        for module, name, unit in borders(root)
        if any({module.unit, unit} <= peers for peers in PEERS)
    ]


def socket_is_the_border(root: Path) -> list[str]:
    return [
        module.at(name.line, f"{module.unit} is in the front half, {unit} in the back half")
        for module, name, unit in borders(root)
        if module.unit in FRONT and unit in BACK
    ]


def imports_are_absolute(root: Path) -> list[str]:
    return [m.at(i.line, "relative import") for m in modules(root) for i in m.imports if i.is_relative]


def native_code_stays_in_llama(root: Path) -> list[str]:
    return [
        module.at(name.line, f"{module.unit} imports llama_cpp; only llama may")
        for module, name in outsiders(root, "llama_cpp")
        if module.unit != "llama"
    ]


def arrays_stay_in_the_back_half(root: Path) -> list[str]:
    return [
        module.at(name.line, f"{module.unit} imports {name.name}, which only a worker may load")
        for module, name in outsiders(root, "numpy", "llama_cpp")
        if module.unit in SHARED + FRONT
    ]


def files_are_short(root: Path) -> list[str]:
    lengths = [(m, m.text.count("\n")) for m in modules(root)]
    return [m.at(n, f"{n} lines, {LONGEST_FILE} at most") for m, n in lengths if n > LONGEST_FILE]


def functions_are_short(root: Path) -> list[str]:
    functions = (
        (module, node, (node.end_lineno or node.lineno) - node.lineno + 1)
        for module in modules(root)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return [
        module.at(node.lineno, f"{node.name} has {n} lines, {LONGEST_FUNCTION} at most")
        for module, node, n in functions
        if n > LONGEST_FUNCTION
    ]


def modules_say_what_they_are_for(root: Path) -> list[str]:
    return [m.at(1, "no docstring") for m in modules(root) if m.text.strip() and not ast.get_docstring(m.tree)]


RULES: list[Callable[[Path], list[str]]] = [
    units_have_a_place,
    imports_point_left,
    peers_stay_apart,
    socket_is_the_border,
    imports_are_absolute,
    native_code_stays_in_llama,
    arrays_stay_in_the_back_half,
    files_are_short,
    functions_are_short,
    modules_say_what_they_are_for,
]

DOC = '"""A planted module."""\n'
FUNCTION = "async def long() -> None:\n" + "    pass\n" * 59
METHOD = "class A:\n" + indent(FUNCTION + "    pass\n", "    ")

# rule, file, what it says
BREACHES = [
    (units_have_a_place, "utils.py", DOC),
    (units_have_a_place, "helpers/text.py", DOC),
    (imports_point_left, "errors.py", DOC + "import plait.protocol"),
    (imports_point_left, "errors.py", DOC + "from plait import protocol"),
    (imports_point_left, "engine/slots.py", DOC + "from plait.worker.bridge import Bridge"),
    (imports_point_left, "web/sse.py", DOC + "def late() -> None:\n    from plait.gateway import app"),
    (imports_point_left, "worker/service.py", DOC + "from plait.cli.main import main"),
    (peers_stay_apart, "engine/slots.py", DOC + "from plait.llama.context import Context"),
    (peers_stay_apart, "web/guard.py", DOC + "from plait.fleet import base"),
    (socket_is_the_border, "gateway/app.py", DOC + "from plait.worker import service"),
    (socket_is_the_border, "dialects/openai.py", DOC + "import plait.text.template"),
    (imports_are_absolute, "engine/slots.py", DOC + "from . import radix"),
    (imports_are_absolute, "engine/slots.py", DOC + "from ..errors import AppError"),
    (native_code_stays_in_llama, "worker/service.py", DOC + "from llama_cpp import llama_cpp"),
    (native_code_stays_in_llama, "cli/main.py", DOC + "import llama_cpp.llama_cpp as native"),
    (arrays_stay_in_the_back_half, "gguf.py", DOC + "import numpy as np"),
    (arrays_stay_in_the_back_half, "fleet/budget.py", DOC + "from numpy.typing import NDArray"),
    (arrays_stay_in_the_back_half, "wire.py", DOC + "import llama_cpp"),
    (files_are_short, "wire.py", DOC + "\n" * 500),
    (functions_are_short, "wire.py", DOC + FUNCTION + "    pass\n"),
    (functions_are_short, "wire.py", DOC + METHOD),
    (modules_say_what_they_are_for, "wire.py", "import json\n"),
]

INNOCENTS = [
    ("__main__.py", DOC + "from plait.cli.main import main"),
    ("cli/main.py", DOC + "from plait.gateway import app\nfrom plait.worker import service\nimport plait.ray"),
    ("worker/__main__.py", DOC + "from plait.engine.slots import Slots\nfrom plait.llama import model\nimport numpy"),
    ("gateway/app.py", DOC + "from plait import __version__\nfrom plait.dialects import openai\nimport plait.web.sse"),
    ("engine/__init__.py", ""),
    ("engine/slots.py", DOC + "import numpy as np\nfrom plait.engine.radix import Tree\nimport plait.errors"),
    ("llama/lib.py", DOC + "from llama_cpp import llama_cpp as native"),
    ("ray/app.py", DOC + "import ray\nfrom plait.gateway.app import create_app"),
    ("wire.py", DOC + FUNCTION + "\n" * (500 - 1 - 60)),
]


def named(rule: Callable[[Path], list[str]]) -> str:
    return rule.__name__


def planted(folder: Path, file: str, text: str) -> Path:
    root = folder / "plait"
    (root / file).parent.mkdir(parents=True)
    (root / file).write_text(text, encoding="utf-8")
    return root


def test_the_package_is_found() -> None:
    assert "__init__" in {module.unit for module in modules(SOURCE)}


@pytest.mark.parametrize("rule", RULES, ids=named)
def test_plait_keeps(rule: Callable[[Path], list[str]]) -> None:
    assert rule(SOURCE) == []


@pytest.mark.parametrize(("rule", "file", "text"), [pytest.param(*b, id=f"{named(b[0])}-{b[1]}") for b in BREACHES])
def test_a_breach_is_seen(tmp_path: Path, rule: Callable[[Path], list[str]], file: str, text: str) -> None:
    breaches = rule(planted(tmp_path, file, text))
    assert breaches
    assert all(file in breach for breach in breaches)


@pytest.mark.parametrize(("file", "text"), INNOCENTS, ids=[file for file, _ in INNOCENTS])
def test_the_innocent_go_free(tmp_path: Path, file: str, text: str) -> None:
    root = planted(tmp_path, file, text)
    assert [breach for rule in RULES for breach in rule(root)] == []


def test_every_rule_has_a_planted_breach() -> None:
    assert {named(rule) for rule, _, _ in BREACHES} == {named(rule) for rule in RULES}
