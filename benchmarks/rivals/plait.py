"""Plait itself, as users start it; also on kernels that were built for any machine, as wheels of others are."""

import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.rivals.base import Build, NotThere, Setup
from benchmarks.rivals.environments import binding_version, folder, run
from benchmarks.rivals.processes import Metrics, ServerProcess, child
from plait import __version__

METRICS = Metrics("plait_prompt_tokens_total", "plait_output_tokens_total")
TELL = "from plait.llama import lib; print(lib.build_info().features)"


class PlaitProcess(ServerProcess):
    def rest(self) -> None:
        """Seconds after a turn it would write to disk what it keeps of prompts. They do not come again: drop them."""
        host, port = self.address
        request = urllib.request.Request(f"http://{host}:{port}/admin/cache", method="DELETE")
        urllib.request.urlopen(request, timeout=30).read()


class Plait:
    name = "plait"

    def install(self) -> None: ...

    def build(self) -> Build:
        return Build(f"plait {__version__}", run([sys.executable, "-c", TELL], self.variables()).strip())

    def variables(self) -> dict[str, str]:
        """What its processes' environment has besides ours."""
        return {}

    @contextmanager
    def start(self, setup: Setup) -> Iterator[ServerProcess]:
        command = [sys.executable, "-m", "plait", "serve", str(setup.model), "--port", "0", *options(setup)]
        with child(command, {"COLUMNS": "200", **self.variables()}) as started:
            started.wait_for_words(r"(?m)^ready ")
            port = int(started.wait_for_words(r"http://127\.0\.0\.1:(\d+)")[1])
            yield PlaitProcess(started.process.pid, ("127.0.0.1", port), METRICS)


class PortablePlait(Plait):
    """Plait on a libllama without this machine's own instructions, so that schedulers are compared, not compilers."""

    name = "plait, portable kernels"

    def __init__(self) -> None:
        self.packages = folder() / f"portable-{binding_version()}"

    @property
    def is_installed(self) -> bool:
        return (self.packages / "llama_cpp" / "lib").is_dir()

    def install(self) -> None:
        """Compiles llama.cpp: some minutes."""
        if self.is_installed:
            return
        package = f"llama-cpp-python=={binding_version()}"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        where = ["--no-cache-dir", "--no-binary", "llama-cpp-python", "--target", str(self.packages)]
        run([*pip, *where, package], {"CMAKE_ARGS": "-DGGML_NATIVE=OFF"})

    def variables(self) -> dict[str, str]:
        if not self.is_installed:
            raise NotThere("no portable kernels: python -m benchmarks rivals builds them")
        return {"LLAMA_CPP_LIB_PATH": str(self.packages / "llama_cpp" / "lib")}


def options(setup: Setup) -> list[str]:
    """A setup in Plait's flags."""
    found = []
    if setup.n_slots:
        found += ["--slots", str(setup.n_slots), "--ctx-size", str(setup.n_ctx)]
    if setup.n_batch:
        found += ["--batch-size", str(setup.n_batch), "--ubatch-size", str(setup.n_batch)]
    if setup.itl_target_ms:
        found += ["--itl-target-ms", str(setup.itl_target_ms)]
    if not setup.has_host_cache:
        found += ["--cache-ram", "0"]
    if setup.cache:
        found += ["--cache-dir", str(setup.cache)]
    return found
