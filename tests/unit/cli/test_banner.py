"""When it is ready, a server says what it serves, how it is laid out, and where it is."""

from io import StringIO

from msgspec import structs
from rich.console import Console

from plait.cli import banner
from plait.config import Config
from plait.fleet.base import Served
from plait.fleet.registry import DEMO
from plait.protocol import Verdict
from tests.fakes.fleet import INFO

URL = "http://127.0.0.1:8080"


def served(name: str, **changes: object) -> Served:
    model = Served(name=name, path="m.gguf", created=0, state="ready", reason="", info=INFO, replicas=[])
    return structs.replace(model, **changes)


def shown(*models: Served, width: int = 100) -> str:
    out = StringIO()
    banner.show(Console(file=out, width=width), models, [URL, "unix:///run/p.sock"], Config(), 1.25)
    assert "\x1b" not in out.getvalue()
    return out.getvalue()


def test_one_model_is_told_in_full() -> None:
    block = shown(served("tiny"))
    for words in ("tiny", "fake 1M F16", "1 M parameters", "1.91 MiB", "512 tokens", "4 slots", "1,024", "split"):
        assert words in block
    for words in ("f16/f16, 3.81 MiB", "threads       2", URL, "unix:///run/p.sock", "1.2 s"):
        assert words in block


def test_it_is_said_if_the_same_request_gets_the_same_text() -> None:
    padded = Verdict(reproducible="under load, padded", reason="decode steps have at least 2 rows")
    info = structs.replace(INFO, verdict=padded)
    assert "reproducible  under load, padded (decode steps have at least 2 rows)\n" in shown(served("tiny", info=info))
    free = structs.replace(INFO, verdict=Verdict(reproducible="under load"))
    assert "reproducible  under load\n" in shown(served("tiny", info=free))


def test_it_is_said_what_is_kept_of_prompts() -> None:
    info = structs.replace(INFO, cache_ram=2**30, cache_disk=2**33)
    assert "prefixes      kept by tokens, up to 1 GiB in RAM, 8 GiB on disk\n" in shown(served("tiny", info=info))
    whole = structs.replace(INFO, cache_ram=2**30, prefix_cache="snapshots")
    assert "kept as snapshots: this model's memory cannot be cut, up to 1 GiB in RAM\n" in shown(
        served("tiny", info=whole)
    )
    assert "prefixes      not kept\n" in shown(served("tiny", info=INFO))


def test_a_size_without_a_name_is_left_out() -> None:
    assert "llama Q8_0, 1 M" in shown(served("tiny", info=structs.replace(INFO, description="llama ?B Q8_0")))


def test_the_demo_model_is_called_one() -> None:
    assert "demo model" in shown(served(DEMO))
    assert "demo model" not in shown(served("tiny"))


def test_several_models_have_a_line_each() -> None:
    block = shown(served("one"), served("two"), served("three", info=None, state="failed", reason="not a GGUF file"))
    lines = [line for line in block.splitlines() if line.startswith("model")]
    assert [line.split()[1] for line in lines] == ["one:", "two:", "three:"]
    assert "failed, not a GGUF file" in lines[2]


def test_the_block_says_what_workers_have_given_up_and_what_not() -> None:
    fully = "sandbox       no network, no writes, no foreign files, no programs, no core dumps\n"
    assert fully in shown(served("tiny"))
    partly = structs.replace(INFO, protections=("no network", "no programs", "no core dumps"))
    assert "no core dumps; not enforced: no writes, no foreign files" in shown(served("tiny", info=partly))
    assert "sandbox       none" in shown(served("tiny", info=structs.replace(INFO, protections=())))


def test_an_address_can_be_copied_from_a_narrow_terminal() -> None:
    assert URL in shown(served("tiny"), width=40)


def test_names_are_shown_as_they_are() -> None:
    assert "[red]tiny" in shown(served("[red]tiny"))
