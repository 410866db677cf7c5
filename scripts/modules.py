"""Write the table of modules in docs/architecture.md anew, from their docstrings: `python scripts/modules.py`."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
HEAD = "| module | what it is for |\n|---|---|\n"


def table() -> str:
    """A row for each module that says something: its path and the first sentence of its docstring."""
    sources = ROOT / "src" / "plait"
    return HEAD + "".join(f"| `{path.relative_to(sources)}` | {says} |\n" for path, says in sentences(sources))


def sentences(sources: Path) -> list[tuple[Path, str]]:
    docs = ((path, ast.get_docstring(ast.parse(path.read_text())) or "") for path in sorted(sources.rglob("*.py")))
    firsts = ((path, " ".join(doc.split("\n\n")[0].split()).replace("|", "\\|")) for path, doc in docs)
    return [(path, first) for path, first in firsts if path.name != "__init__.py"]


if __name__ == "__main__":
    PAGE.write_text(PAGE.read_text().partition(HEAD)[0] + table())
