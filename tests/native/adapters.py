"""A LoRA adapter of random weights for the model of `models.write_llama`, and others that are none."""

from pathlib import Path

import gguf
import numpy as np

from tests.native.models import N_EMBD, N_LAYER

RANK = 4


def write_adapter(
    path: Path,
    *,
    architecture: str = "llama",
    kind: object = "adapter",
    alpha: object = 4.0,
    n_embd: int = N_EMBD,
    invocation: bool = False,
    seed: int = 0,
) -> None:
    writer = gguf.GGUFWriter(path, architecture)
    add(writer, "general.type", kind)
    add(writer, "adapter.type", "lora")
    add(writer, "adapter.lora.alpha", alpha)
    if invocation:
        writer.add_array("adapter.alora.invocation_tokens", [1, 2])
    random = np.random.default_rng(seed)
    for i in range(N_LAYER):
        for name, shape in (("lora_a", (RANK, n_embd)), ("lora_b", (n_embd, RANK))):
            writer.add_tensor(f"blk.{i}.attn_output.weight.{name}", random.standard_normal(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add(writer: gguf.GGUFWriter, key: str, value: object) -> None:
    """A key of the type that the value has."""
    match value:
        case str():
            writer.add_string(key, value)
        case float():
            writer.add_float32(key, value)
        case int():
            writer.add_uint32(key, value)
