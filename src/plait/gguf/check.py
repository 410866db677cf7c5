"""What libllama takes for granted of a model's header. Where it is not so, libllama ends its process, not the load."""

import math

from plait.gguf.bitnet import I2_S, check_scales, squares_relu
from plait.gguf.cursor import GGUFError
from plait.gguf.header import Header

_FLOATS = ("F32", "F16", "BF16")


def check(model: Header) -> None:
    """Raise `GGUFError` for a header that reads well, but of which no model can be made."""
    if not model.n_layers:
        raise GGUFError(f"{model.path}: block_count is 0; a model has layers")
    for key, value in model.metadata.items():
        if key.endswith("_epsilon") and not (isinstance(value, float) and 0 <= value < math.inf):
            raise GGUFError(f"{model.path}: {key} is {value!r}")
    for tensor in model.tensors:
        if tensor.type == I2_S:
            raise GGUFError(f"{model.path}: {tensor.name} is of type I2_S; `plait convert` makes what can be loaded")
        if tensor.name.endswith("norm.weight") and tensor.type not in _FLOATS:
            raise GGUFError(f"{model.path}: {tensor.name} is of type {tensor.type}, not one of {', '.join(_FLOATS)}")
    if squares_relu(model):
        check_scales(model)
