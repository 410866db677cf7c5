"""The server that comes with llama-cpp-python, on the same version of it, and so the same kernels, as Plait."""

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.rivals.base import Build, Setup
from benchmarks.rivals.environments import Environment, binding_version, run
from benchmarks.rivals.processes import ServerProcess, child, free_port

ENVIRONMENT = Environment("llama-cpp-python", (f"llama-cpp-python[server]=={binding_version()}",))


class LlamaCppPython:
    """It has no slots: one request at a time, and unless it is told otherwise, a new one ends the one that runs."""

    name = "llama-cpp-python"

    def install(self) -> None:
        ENVIRONMENT.make()

    def build(self) -> Build:
        told = "import llama_cpp as l; print(l.__version__); print(l.llama_print_system_info().decode())"
        version, features = run([ENVIRONMENT.python(), "-c", told]).splitlines()[:2]
        return Build(f"llama-cpp-python {version}", features.strip(" |"))

    @contextmanager
    def start(self, setup: Setup) -> Iterator[ServerProcess]:
        port = free_port()
        options = ["--model", str(setup.model), "--port", str(port), "--use_mlock", "False"]
        if setup.n_slots:
            threads = ["--n_threads", "-1", "--n_threads_batch", "-1"]
            options += ["--n_ctx", str(setup.n_ctx), "--interrupt_requests", "False", *threads]
        command = [ENVIRONMENT.python(), "-m", "llama_cpp.server", *options]
        with child(command) as started:
            started.wait_for_page(("127.0.0.1", port), "/v1/models")
            yield ServerProcess(started.process.pid, ("127.0.0.1", port))
