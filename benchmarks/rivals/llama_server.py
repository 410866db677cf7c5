"""llama.cpp's own server, as pip installs it: the `Server` of the `xllamacpp` wheel."""

import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.rivals.base import Build, Setup
from benchmarks.rivals.environments import Environment, run
from benchmarks.rivals.processes import Metrics, ServerProcess, child

ENVIRONMENT = Environment("xllamacpp", ("xllamacpp==2026.10.11549",))
PROGRAM = Path(__file__).with_name("llama_server_program.py")
DEFAULT_SLOTS = 4
"""What the command `llama-server` takes when it is not told, in one memory; the wheel's own default is one slot."""
METRICS = Metrics("llamacpp:prompt_tokens_total", "llamacpp:tokens_predicted_total")


class SlotKeeper(ServerProcess):
    """Slots can be saved to files, when somebody says so for each of them, and read back the same way."""

    def keep(self, n_slots: int) -> None:
        for slot in range(n_slots):
            with contextlib.suppress(urllib.error.HTTPError):  # 400: an empty slot
                self._tell(slot, "save")

    def recall(self, n_slots: int) -> None:
        for slot in range(n_slots):
            with contextlib.suppress(urllib.error.HTTPError):  # 400: nothing was saved
                self._tell(slot, "restore")

    def _tell(self, slot: int, action: str) -> None:
        host, port = self.address
        body = json.dumps({"filename": f"slot-{slot}"}).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"http://{host}:{port}/slots/{slot}?action={action}", body, headers)
        urllib.request.urlopen(request, timeout=60).read()


class LlamaServer:
    name = "llama-server"

    def install(self) -> None:
        ENVIRONMENT.make()

    def build(self) -> Build:
        told = "import xllamacpp as x; print(x.__version__); print(x.get_system_info())"
        version, features = run([ENVIRONMENT.python(), "-c", told]).splitlines()[:2]
        return Build(f"xllamacpp {version}", features.strip(" |"))

    @contextmanager
    def start(self, setup: Setup) -> Iterator[ServerProcess]:
        options = {
            "model": str(setup.model),
            "n_slots": setup.n_slots or DEFAULT_SLOTS,
            "n_ctx": setup.n_ctx * (setup.n_slots or DEFAULT_SLOTS),
            "is_unified": setup.is_unified or not setup.n_slots,
            "n_batch": setup.n_batch,
            "has_host_cache": setup.has_host_cache,
            "is_greedy": setup.is_greedy,
            "slots_path": f"{setup.cache}/" if setup.cache else "",
        }
        with child([ENVIRONMENT.python(), str(PROGRAM), json.dumps(options)]) as started:
            port = int(started.wait_for_words(r"listens at http://127\.0\.0\.1:(\d+)\n")[1])
            address = "127.0.0.1", port
            started.wait_for_page(address, "/health")  # it says where it will be before it is there
            yield SlotKeeper(started.process.pid, address, METRICS)
