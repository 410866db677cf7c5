"""BitNet's files as bitnet.cpp writes them: turned once into what llama.cpp computes with, and found again after that.

The converted files lie in the user's cache, under the digest of what they were made from, and how. The digest is of
samples; a date tells a file that was spoilt from the same one fetched again: a converted file has that of its source,
and makes place for one of a later source. A process of its own does the work: the gateway has no numpy, and what is
read is a stranger's.
"""

import os
import subprocess
import sys
from pathlib import Path

from plait import config, gguf
from plait.errors import ModelLoadFailed
from plait.fleet.process import environment
from plait.fleet.progress import Progress, unheard

FORMAT = 2
"""Changes when a file is to be converted in another way."""
COMMAND = (sys.executable, "-P", "-m", "plait.bitnet")


def ready(path: Path, settings: config.Config, progress: Progress = unheard) -> Path:
    """The file to load for the model at `path`: `path` itself, unless it has to be converted.

    Converts if that was not done before. Raises `ModelLoadFailed` for what cannot be served.
    """
    model = gguf.skim(path)
    if gguf.squares_relu(model):
        _refuse(path, settings.engine)
    if not gguf.needs_conversion(model):
        return path
    digest, head, layout = gguf.digest(path), settings.models.bitnet_head, settings.models.i2s_layout
    target, date = folder() / f"{digest}-{head}-{layout}-{FORMAT}.gguf", path.stat().st_mtime_ns
    if target.exists() and target.stat().st_mtime_ns < date:
        target.unlink()
    if not target.exists():
        _convert(path, [str(target), head, layout], progress)
        os.utime(target, ns=(date, date))
        for older in {*folder().glob(f"{digest}-*{head}-{layout}-*.gguf")} - {target}:
            older.unlink(missing_ok=True)  # of another format
    return target


def folder() -> Path:
    """Where converted files lie. They can be deleted while no server runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plait" / "converted"


def _refuse(path: Path, engine: config.Engine) -> None:
    """What cannot be had with squared ReLU."""
    if engine.n_gpu_layers > 0:
        raise ModelLoadFailed(
            f"{path}: BitNet's squared ReLU is computed on the CPU;"
            f" n_gpu_layers is {engine.n_gpu_layers}, and has to be 0 or left out"
        )
    if engine.lora:
        raise ModelLoadFailed(
            f"{path}: BitNet's squared ReLU is not computed with LoRA adapters; lora has to be left out"
        )


def _convert(source: Path, arguments: list[str], progress: Progress) -> None:
    command = [*COMMAND, str(source.absolute()), *arguments]
    refusal = ""
    with subprocess.Popen(
        command, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith("!"):
                    refusal = line[1:].strip()
                else:
                    n_done, n_total = map(int, line.split())
                    progress(source.name, n_done, n_total)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        died = f"{source} could not be converted: the converter ended with {process.returncode}"
        raise ModelLoadFailed(refusal or died)
