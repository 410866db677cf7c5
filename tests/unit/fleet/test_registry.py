"""What is written after -m becomes a name and a file."""

import json
from pathlib import Path

import pytest

from plait.errors import ModelNotFound
from plait.fleet.registry import DEMO, Source, resolve
from tests.fakes.gguf_file import write_gguf


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without models."""
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "LLAMA_CACHE", "OLLAMA_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_file_is_named_after_itself(home: Path) -> None:
    path = write_gguf(home / "models" / "tiny-Q8_0.gguf")
    assert resolve(str(path)) == Source("tiny-Q8_0", path)
    assert resolve("~/models/tiny-Q8_0.gguf") == Source("tiny-Q8_0", path)


def test_a_file_may_have_any_name(home: Path) -> None:
    path = write_gguf(home / "blob")
    assert resolve(str(path)) == Source("blob", path)


def test_the_number_of_a_part_is_no_part_of_the_name(home: Path) -> None:
    path = write_gguf(home / "tiny-00001-of-00002.gguf")
    assert resolve(str(path)).name == "tiny"


def test_a_name_may_be_given(home: Path) -> None:
    path = write_gguf(home / "tiny.gguf")
    assert resolve(f"mine={path}") == Source("mine", path)
    assert resolve("mine=tiny") == Source("mine", Path("tiny.gguf"))


def test_a_path_with_an_equals_sign_is_a_path(home: Path) -> None:
    path = write_gguf(home / "a=b.gguf")
    assert resolve(str(path)) == Source("a=b", path)
    assert resolve("a=b.gguf") == Source("a=b", Path("a=b.gguf"))


def test_a_model_on_this_machine_is_found_by_name(home: Path) -> None:
    path = write_gguf(home / ".cache" / "llama.cpp" / "known.gguf")
    assert resolve("known") == Source("known", path)


@pytest.mark.parametrize("source", ["tiny", "tiny:latest", "ollama:tiny", "ollama:tiny:latest"])
def test_an_ollama_model_is_found_as_ollama_finds_it(home: Path, source: str) -> None:
    store, digest = home / ".ollama" / "models", "5" * 64
    blob = write_gguf(store / "blobs" / f"sha256-{digest}")
    manifest = store / "manifests" / "registry.ollama.ai" / "library" / "tiny" / "latest"
    manifest.parent.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
    manifest.write_text(json.dumps({"layers": [layer]}))
    assert resolve(source) == Source(source.removeprefix("ollama:"), blob)


def test_the_demo_model_has_a_name() -> None:
    demo = resolve(DEMO)
    assert (demo.name, demo.path.name) == (DEMO, f"{DEMO}.gguf")
    assert demo.path.parent.name == "demo"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("none.gguf", "there is no file none.gguf"),
        ("mine=none.gguf", "there is no file none.gguf"),
        ("unknown", "no model 'unknown'"),
        ("", "no model ''"),
        ("=", "no model '='"),
        ("hf:", "not of the form hf:owner/repo"),
        ("hf:owner", "not of the form hf:owner/repo"),
        ("hf:owner/repo/file.gguf", "not of the form hf:owner/repo"),
        ("hf:owner/repo:Q8_0:more", "not of the form hf:owner/repo"),
        ("ollama:unknown", "no model 'ollama:unknown'"),
        ("~nobody-of-that-name/x.gguf", "there is no file"),
        ("/nobody/hf:owner/repo", "there is no file /nobody/hf:owner/repo"),
        ("/nobody/a=b", "there is no file /nobody/a=b"),
        ("x" * 5000, "no model"),
        ("nul\0byte", "no model"),
        ("a=" * 5000, "no model"),
    ],
)
def test_what_is_not_there_is_said(source: str, said: str) -> None:
    with pytest.raises(ModelNotFound, match=said):
        resolve(source)
