"""What the documentation says of the code is so."""

import re
from pathlib import Path

import plait
from scripts import modules

DOCS = Path(plait.__file__).parents[2]


def test_the_architecture_page_says_of_every_module_what_that_says_of_itself() -> None:
    assert (DOCS / "docs/architecture.md").read_text().endswith(modules.table()), "run scripts/modules.py"


def test_the_changelog_knows_this_version() -> None:
    assert f"## {plait.__version__}" in (DOCS / "CHANGELOG.md").read_text()


def test_links_between_pages_lead_somewhere() -> None:
    pages = [*DOCS.glob("*.md"), *(DOCS / "docs").rglob("*.md"), *(DOCS / "tools").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
