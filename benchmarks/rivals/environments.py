"""Where rivals live: virtual environments of their own, made once, under the user's cache directory."""

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rivals.base import NotThere


def folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "plait" / "benchmarks" / "rivals"


@dataclass(frozen=True)
class Environment:
    """One with these packages."""

    name: str
    packages: tuple[str, ...]

    @property
    def home(self) -> Path:
        return folder() / self.name

    @property
    def is_made(self) -> bool:
        made = self.home / ".made-of"
        return made.exists() and made.read_text() == " ".join(self.packages)

    def make(self) -> None:
        """Does nothing when that is done. Raises `NotThere` with the last words of pip."""
        if self.is_made:
            return
        run([sys.executable, "-m", "venv", "--clear", str(self.home)])
        pip = [str(self.home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run([*pip, *self.packages])
        (self.home / ".made-of").write_text(" ".join(self.packages))

    def python(self) -> str:
        """Raises `NotThere` when it was not made: many may ask for it at once, and none of them shall make it."""
        if not self.is_made:
            raise NotThere(f"{self.name} is not installed: python -m benchmarks rivals")
        return str(self.home / "bin" / "python")


def binding_version() -> str:
    """Of the llama-cpp-python that Plait uses."""
    return importlib.metadata.version("llama-cpp-python")


def run(command: Sequence[str], variables: Mapping[str, str] | None = None) -> str:
    """What a command prints."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(variables or {})})
    if done.returncode:
        raise NotThere(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
    return done.stdout
