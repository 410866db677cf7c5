"""A folder on disk is for workers whose bytes mean the same."""

from pathlib import Path
from typing import Any

from msgspec import structs

from plait import config
from plait.protocol import Load
from plait.worker import storage


def folder(root: Path, digest: str = "a" * 32, **settings: Any) -> Path:
    fixed = config.Engine(ctx_size=1024, cache_dir=str(root), cache_ram=2**20, cache_disk=2**20)
    engine = structs.replace(fixed, **settings)
    found = storage.folder(Load(path="a.gguf", digest=digest, engine=engine, log_level="info"))
    assert found
    return found.folder


def test_a_shared_pool_has_a_folder_of_its_own(tmp_path: Path) -> None:
    """Its attention adds in another order: the same tokens may have other bits."""
    assert folder(tmp_path) == folder(tmp_path, ctx_size=512)
    assert folder(tmp_path) != folder(tmp_path, kv_cells=1024)


def test_another_model_or_other_bits_of_it_have_a_folder_of_their_own(tmp_path: Path) -> None:
    kinds: list[dict[str, Any]] = [{"cache_type_k": "q8_0"}, {"cache_type_v": "q8_0"}, {"rope_freq_base": 1.0}]
    others = [folder(tmp_path, "b" * 32), *(folder(tmp_path, **kind) for kind in kinds)]
    assert len({folder(tmp_path), *others}) == 5
