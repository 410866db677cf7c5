"""The header of a GGUF file: what a model is, before it is loaded.

The file is a stranger's: whatever is wrong with it is a `GGUFError`. Knows the layout and llama.cpp's names; not what a
machine can hold (`fleet.budget`), nor whether libllama will like the model.
"""

from plait.gguf.bitnet import needs_conversion, squares_relu
from plait.gguf.check import check
from plait.gguf.cursor import GGUFError, Unreadable
from plait.gguf.digest import digest
from plait.gguf.header import MAX_LAYERS, Header, KVRow
from plait.gguf.parse import SPLIT, files, skim
from plait.gguf.types import TYPES, n_bytes

__all__ = [
    "MAX_LAYERS",
    "SPLIT",
    "TYPES",
    "GGUFError",
    "Header",
    "KVRow",
    "Unreadable",
    "check",
    "digest",
    "files",
    "n_bytes",
    "needs_conversion",
    "skim",
    "squares_relu",
]
