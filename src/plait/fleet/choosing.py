"""Which of many GGUF files is the model that was asked for.

Chooses as llama.cpp does: the quantization that was asked for, else Q4_K_M, else Q8_0, else the first.
"""

import re
from collections.abc import Iterable

from plait.gguf import SPLIT

PREFERRED = ("Q4_K_M", "Q8_0")
"""When no quantization is asked for, the first of these that there is."""

NOT_MODELS = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
"""Parts of the names of GGUF files that go beside a model."""


def choose(files: Iterable[str], quant: str) -> list[str]:
    """The file that holds the model, or all of its parts in order; nothing when there is none."""
    models = sorted(file for file in files if is_model(file))
    heads = [file for file in models if _part(file) == 1]
    for wanted in [quant] if quant else PREFERRED:
        named = re.compile(rf"(?:^|[^a-z0-9]){re.escape(wanted)}[./-]", re.IGNORECASE)
        if found := [file for file in heads if named.search(file)]:
            return _with_parts(found[0], models)
    return _with_parts(heads[0], models) if heads and not quant else []


def is_model(file: str) -> bool:
    """Whether a file's name is a model's, and not that of something beside it."""
    name = file.rpartition("/")[2]
    return name.endswith(".gguf") and not any(part in name for part in NOT_MODELS)


def _part(file: str) -> int:
    split = SPLIT.fullmatch(file.rpartition("/")[2])
    return int(split["index"]) if split else 1


def _with_parts(file: str, models: list[str]) -> list[str]:
    """The file, and those that differ from it only in the number of the part."""
    split = SPLIT.fullmatch(file)
    if not split:
        return [file]
    return [part for part in models if (other := SPLIT.fullmatch(part)) and other["stem"] == split["stem"]]
