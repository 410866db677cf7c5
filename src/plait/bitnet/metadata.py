"""What a converted file says of itself: what bitnet.cpp's said, with llama.cpp's names, and three defects repaired."""

import struct
from collections.abc import Mapping

from plait.bitnet.writing import value
from plait.gguf import Header, squares_relu
from plait.gguf.bitnet import ARCHITECTURES, SQUARED_RELU

BITNET = "bitnet"
TQ2_0_FILE = 37
"""llama.cpp's number for a file that is mostly TQ2_0. bitnet.cpp's numbers mean something else there."""
PRE_TOKENIZER = "llama-bpe"
END_OF_TURN = "<|eot_id|>"
CHAT_TEMPLATE = (
    "{% for m in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
    "{{ m['role'] | capitalize + ': ' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)
"""How the model was trained to be talked to."""

_WRONG_TEMPLATE = b"BITNETAssistant"
"""In the template that bitnet.cpp's converter puts into every file."""
_TEXTS = struct.pack("<II", 9, 8)
"""What an array of texts begins with."""
_DROPPED = ("general.architecture", "general.file_type", "general.alignment")


def architecture(model: Header) -> str:
    """llama.cpp's name for it."""
    return BITNET if model.architecture in ARCHITECTURES else model.architecture


def repaired(model: Header, said: Mapping[str, bytes]) -> dict[str, bytes]:
    """The new file's metadata. Values are bytes as they stand in a file, with their type in front."""
    name = architecture(model)
    kept = {_renamed(key, model, name): raw for key, raw in said.items() if key not in _DROPPED}
    new = {"general.architecture": value(name), "general.file_type": value(TQ2_0_FILE), **kept}
    if squares_relu(model):
        new[f"{BITNET}.hidden_activation"] = value(SQUARED_RELU)
    if model.architecture in ARCHITECTURES:
        _repair(new)
    return new


def _renamed(key: str, model: Header, name: str) -> str:
    own, dot, rest = key.partition(f"{model.architecture}.")
    return f"{name}.{rest}" if dot and not own else key


def _repair(metadata: dict[str, bytes]) -> None:
    """The vocabulary is Llama 3's, and so is the end of a turn; the turns themselves are not."""
    if metadata.get("tokenizer.ggml.model") == value("gpt2"):
        metadata.setdefault("tokenizer.ggml.pre", value(PRE_TOKENIZER))
    if _WRONG_TEMPLATE in metadata.get("tokenizer.chat_template", _WRONG_TEMPLATE):
        metadata["tokenizer.chat_template"] = value(CHAT_TEMPLATE)
    end = _find(END_OF_TURN.encode(), metadata.get("tokenizer.ggml.tokens", b""))
    if end is not None:
        metadata.setdefault("tokenizer.ggml.eot_token_id", value(end))


def _find(wanted: bytes, texts: bytes) -> int | None:
    """The place of a text in an array of texts, which is a metadata value."""
    if not texts.startswith(_TEXTS):
        return None
    (n,) = struct.unpack_from("<Q", texts, 8)
    at = 16
    for place in range(n):
        (length,) = struct.unpack_from("<Q", texts, at)
        at += 8 + length
        if length == len(wanted) and texts[at - length : at] == wanted:
            return place
    return None
