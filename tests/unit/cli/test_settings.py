"""docs/config.md says what the declarations say."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from plait import config
from plait.cli.main import plait
from plait.cli.settings import page
from plait.config import Option, load

DOCS = Path(__file__).parents[3] / "docs" / "config.md"


def test_the_reference_page_is_up_to_date() -> None:
    assert DOCS.read_text(encoding="utf-8") == page(), "write it anew with: plait settings > docs/config.md"


def test_the_command_prints_the_page() -> None:
    assert CliRunner().invoke(plait, ["settings"]).output == page()


@pytest.mark.parametrize("opt", list(config.options()), ids=lambda opt: opt.name)
def test_every_setting_has_a_row(opt: Option) -> None:
    assert page().count(f"`{opt.variable}`") == 1
    assert page().count(f"`{opt.shown}`") == 1


def test_the_pages_example_is_a_file_that_can_be_read(tmp_path: Path) -> None:
    example = tmp_path / "plait.toml"
    example.write_text(page().partition("```toml\n")[2].partition("```")[0])
    assert load({}, {}, example).engine.ctx_size == 4096
