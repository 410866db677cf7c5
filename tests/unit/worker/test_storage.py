"""A folder on disk is for workers whose bytes mean the same."""

from pathlib import Path

from plait import config
from plait.protocol import Load
from plait.worker import storage


def folder(root: Path, ctx_size: int = 1024, kv_cells: int = 0) -> Path:
    engine = config.Engine(ctx_size=ctx_size, kv_cells=kv_cells, cache_dir=str(root), cache_ram=2**20, cache_disk=2**20)
    found = storage.folder(Load(path="a.gguf", digest="a" * 32, engine=engine, log_level="info"))
    assert found
    return found.folder


def test_a_shared_pool_has_a_folder_of_its_own(tmp_path: Path) -> None:
    """Its attention adds in another order: the same tokens may have other bits."""
    assert folder(tmp_path) == folder(tmp_path, ctx_size=512)
    assert folder(tmp_path) != folder(tmp_path, kv_cells=1024)
