"""What bitnet.cpp makes of a model: names and tensor types of its own, some of them numbers that mean something else to
llama.cpp. Tells which files these are, and refuses those that cannot be served.
"""

from collections.abc import Sequence
from typing import NamedTuple

from plait.gguf.cursor import GGUFError
from plait.gguf.header import Header

ARCHITECTURES = ("bitnet-b1.58", "bitnet-25")
"""Its names for a model that llama.cpp calls `bitnet`, but with squared ReLU."""
I2_S = "I2_S"
SQUARED_RELU = "relu2"

_TABLES = {37: "I8_S", 38: "TL1", 39: "TL2", 42: "TL2"}
"""Its tensor types that cannot be read without the tables they were made with."""
_ALSO_LLAMA_CPPS = (39, 42)
_MARK = ".weight_scale"
"""How a tensor is called that goes with one of those types."""


class Entry(NamedTuple):
    """One line of a file's list of tensors."""

    name: str
    shape: tuple[int, ...]
    number: int
    """Of its type."""
    offset: int


def refuse_tables(architecture: object, entries: Sequence[Entry]) -> None:
    """Raise `GGUFError` for a file with TL1 or TL2 tensors."""
    is_marked = architecture in ARCHITECTURES or any(entry.name.endswith(_MARK) for entry in entries)
    for entry in entries:
        if entry.number in _TABLES and (is_marked or entry.number not in _ALSO_LLAMA_CPPS):
            raise GGUFError(
                f"{entry.name} is of bitnet.cpp's type {_TABLES[entry.number]}, whose layout depends on tables that"
                " are not in the file; take the model's I2_S file, ggml-model-i2_s.gguf"
            )


def needs_conversion(model: Header) -> bool:
    """Whether the file is bitnet.cpp's: llama.cpp has no name for what is in it."""
    return model.architecture in ARCHITECTURES or any(tensor.type == I2_S for tensor in model.tensors)


def squares_relu(model: Header) -> bool:
    """Whether the feed-forward blocks are gated by relu(x)², which llama.cpp's graph of BitNet does not know."""
    if model.architecture in ARCHITECTURES:
        return True
    return model.architecture == "bitnet" and model.text("bitnet.hidden_activation") == SQUARED_RELU


def check_scales(model: Header) -> None:
    """Raise `GGUFError` for a model with squared ReLU whose matrices do not have scales of their own."""
    names = {tensor.name for tensor in model.tensors}
    for i in range(model.n_layers):
        for name in (f"blk.{i}.ffn_gate.scale", f"blk.{i}.ffn_up.scale"):
            if name not in names:
                raise GGUFError(
                    f"{model.path}: there is no {name}; BitNet is served from ggml-model-i2_s.gguf, or from what"
                    " `plait convert` makes of it"
                )
