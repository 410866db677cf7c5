"""The check table of llm-http, row by row, against the running program. What the model says does not count."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner

from plait import gguf
from plait.cli.launchers.llm_http import command
from plait.dialects import llm_http_prompts
from plait.dialects.llm_http_prompts import Kept
from plait.fleet.registry import DEMO, resolve
from tests.dialects.llm_http.asking import PROMPT, ask, chunks, exchange, post, said
from tests.dialects.llm_http.conftest import llm_http
from tests.serving import Server, free_port, running
from tests.waiting import until

WILD: dict[str, object] = {"temp": 50, "top_k": 10**12, "top_p": 2}
"""One token is as likely as another, so the end of the text is not."""
STRANGE = 'Hé😀llo, "wörld"\n\nyou\t漢字'


def test_0_1_post_stream_is_chunked_text(server: Server) -> None:
    head, _, body = exchange(server, b'{"prompt": "Once", "num_predict": 2}').partition(b"\r\n\r\n")
    status, *headers = head.lower().split(b"\r\n")
    assert status == b"http/1.1 200 ok"
    assert b"content-type: text/plain" in headers
    assert b"transfer-encoding: chunked" in headers
    assert body.startswith(b"1\r\n\n\r\n5\r\nOnce\n\r\n")


def test_0_1_a_client_that_leaves_is_not_written_for(server: Server) -> None:
    n_cancelled = server.metric("plait_worker_cancelled_total")

    def leave() -> bool:
        body = {"prompt": PROMPT, "num_predict": 2000} | WILD
        with httpx2.stream("POST", f"{server.url}/stream", json=body, timeout=60) as answer:
            parts = answer.iter_raw()
            assert next(parts).startswith(b"\n")
        return server.metric("plait_worker_cancelled_total") > n_cancelled

    # Again, because now and then the text ends before its reader is gone.
    until(leave)
    until(lambda: server.metric("plait_slots_writing") == 0)


def test_0_2_a_line_is_a_chunk_and_nothing_is_escaped(server: Server) -> None:
    found = chunks(server, STRANGE, num_predict=0)
    assert all(chunk.endswith(b"\n") for chunk in found)
    assert "".join(chunk[:-1].decode() for chunk in found) == STRANGE


def test_0_3_the_prompt_comes_back_first(server: Server) -> None:
    found = chunks(server, num_predict=4)
    texts = [chunk[:-1].decode() for chunk in found]
    assert "".join(texts).startswith(PROMPT)
    assert "".join(texts[: len(chunks(server, num_predict=0))]) == PROMPT


def test_0_4_the_begin_token_is_an_empty_line(server: Server) -> None:
    assert ask(server, num_predict=0).text.startswith("\nOnce\n")
    assert ask(server, prompt="", num_predict=0).text == "\n"


BAD = [
    b"",
    b"{",
    b"[]",
    b'"prompt"',
    b"{}",
    b'{"prompt": "a"} x',
    b'{"prompt": "\xff"}',
    b"[" * 100_000,
    b'{"prompt": null}',
    b'{"prompt": 7}',
    b'{"prompt": ["a"]}',
    b'{"prompt": "a", "num_predict": -1}',
    b'{"prompt": "a", "num_predict": 32.0}',
    b'{"prompt": "a", "num_predict": "32"}',
    b'{"prompt": "a", "n_batch": 1.5}',
    b'{"prompt": "a", "top_k": "40"}',
    b'{"prompt": "a", "top_p": "0.9"}',
    b'{"prompt": "a", "repeat_penalty": true}',
    b'{"prompt": "a", "temp": []}',
    b'{"prompt": "a", "temp": NaN}',
    b'{"prompt": "a", "cache": -1}',
    b'{"prompt": "a", "cache": 1.0}',
    b'{"prompt": "a", "cache": "1"}',
    b'{"prompt": "a", "prompt": "a"}',
]


@pytest.mark.parametrize("body", BAD, ids=[body[:40].decode(errors="replace") for body in BAD])
def test_0_5_what_is_no_request_is_an_empty_400(server: Server, body: bytes) -> None:
    answer = post(server, body)
    assert (answer.status_code, answer.content) == (400, b"")


@pytest.mark.parametrize("body", [b'{"prompt": "a", "n_batch": 0}', b'{"prompt": "a", "top_k": 0}'])
def test_0_5_what_the_original_died_of_is_an_empty_400(server: Server, body: bytes) -> None:
    answer = post(server, body)
    assert (answer.status_code, answer.content) == (400, b"")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/stream"), ("PUT", "/stream"), ("POST", "/stream/"), ("GET", "/"), ("POST", "/"), ("POST", "/generate")],
)
def test_0_6_what_is_not_there_is_an_empty_404(server: Server, method: str, path: str) -> None:
    answer = httpx2.request(method, server.url + path, timeout=60)
    assert (answer.status_code, answer.content) == (404, b"")


def test_0_7_num_predict_counts_what_is_written_and_is_32(server: Server) -> None:
    def n_written(prompt: str, **fields: object) -> float:
        before = server.metric("plait_output_tokens_total")
        ask(server, prompt, **fields)
        until(lambda: server.metric("plait_slots_writing") == 0)
        return server.metric("plait_output_tokens_total") - before

    prompts = [PROMPT, "The dog and the cat", "One day, a girl named"]
    assert max(n_written(prompt) for prompt in prompts) == 32
    assert max(n_written(prompt, num_predict=40) for prompt in prompts) == 40
    assert n_written(PROMPT, num_predict=None, temp=0) == n_written(PROMPT, num_predict=32, temp=0)
    assert n_written(PROMPT, num_predict=0) == 0


def test_0_8_a_request_overrides_the_flags(server: Server) -> None:
    greedy = said(server, temp=0, repeat_penalty=1)
    assert said(server, temp=5.0, top_k=1, repeat_penalty=1) == greedy
    assert said(server, temp=5.0, top_p=0, repeat_penalty=1.0) == greedy
    assert said(server, temp=0, repeat_penalty=1, n_batch=1) == greedy
    assert said(server, temp=0, repeat_penalty=100) != greedy
    wild = {tuple(said(server, PROMPT, **WILD)) for _ in range(3)}
    assert len(wild) == 3


def test_0_9_a_prompt_is_kept_under_its_number_and_0_is_none(server: Server, folder: Path) -> None:
    before = set(folder.glob("*"))
    ask(server, num_predict=1, cache=0)
    ask(server, num_predict=1, cache=None)
    assert set(folder.glob("*")) == before
    ask(server, num_predict=1, cache=2**62)
    assert set(folder.glob("*")) == before | {folder / f"{2**62}.plait-prompt"}


BEGINNING = PROMPT + " girl and a big dog and a cat who lived in a house by the sea and were good friends." * 2
REST = " One day they went"
GREEDY: dict[str, object] = {"temp": 0, "num_predict": 8}


@contextlib.contextmanager
def keeping(root: Path, *flags: str, **more: str) -> Iterator[Server]:
    """A server whose prompts, and their KV, outlive it."""
    env = {"PLAIT_CACHE_DIR": str(root / "segments"), "PLAIT_LOG_LEVEL": "info"} | more
    with llm_http("-f", "--cache-dir", str(root), *flags, **env) as server:
        yield server


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a server that has ended kept BEGINNING under number 3."""
    root = tmp_path_factory.mktemp("kept")
    with keeping(root) as server:
        assert ask(server, BEGINNING, num_predict=0, cache=3).text.replace("\n", "") == BEGINNING
    return root


def n_kept(root: Path) -> int:
    model = gguf.digest(resolve(DEMO).path)
    return len(llm_http_prompts.load(root / "3.plait-prompt", model).tokens)


def test_0_9_after_a_restart_its_number_restores_it_and_it_is_not_computed_again(
    server: Server, kept: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = said(server, BEGINNING + REST, **GREEDY)
    with keeping(kept) as later:
        found = chunks(later, REST, cache=3, **GREEDY)
        assert later.metric("plait_cached_tokens_total", source="disk") == n_kept(kept)
        n_computed = later.metric("plait_prompt_tokens_total")
    echoed = found[: len(found) - len(whole)]
    assert "".join(chunk[:-1].decode() for chunk in echoed) == REST
    assert found[len(echoed) :] == whole
    assert n_computed == len(echoed)
    counts = f"{n_kept(kept) + len(echoed)} tokens, {n_kept(kept)} cached"
    assert f"a prompt is restored from {kept}/3.plait-prompt: {counts}" in capfd.readouterr().err


def test_0_9_what_others_ask_does_not_drive_it_out(tmp_path: Path) -> None:
    small = {"PLAIT_CACHE_DISK": "512KiB", "PLAIT_CACHE_RAM": "128KiB"}
    seen: set[Path] = set()

    with keeping(tmp_path, **small) as server:

        def has_evicted() -> bool:
            """After one more prompt, of which RAM has room for one and the disk for four."""
            ask(server, f"{len(seen)} {BEGINNING}", num_predict=1)
            there = set(tmp_path.rglob("*.kv"))
            seen.update(there)
            return bool(seen - there)

        ask(server, BEGINNING, num_predict=0, cache=3)
        until(has_evicted)  # what was used least recently: that, if it were not kept
    with keeping(tmp_path, **small) as later:
        echoed = chunks(later, REST, cache=3, num_predict=0)
        chunks(later, REST, cache=3, **GREEDY)
        assert later.metric("plait_cached_tokens_total", source="disk") == n_kept(tmp_path)
        assert later.metric("plait_prompt_tokens_total") == len(echoed)


def test_0_9_a_file_restores_it_for_every_request(
    server: Server, kept: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = said(server, BEGINNING + REST, **GREEDY)
    with keeping(kept, "-R", str(kept / "3.plait-prompt")) as restored:
        # The last token's logits are in no cache.
        assert restored.metric("plait_cached_tokens_total", source="disk") == n_kept(kept) - 1
        assert restored.metric("plait_prompt_tokens_total") == 1
        found = chunks(restored, REST, **GREEDY)
        assert restored.metric("plait_cached_tokens_total") == 2 * n_kept(kept) - 1
    assert found[len(found) - len(whole) :] == whole
    assert "".join(chunk[:-1].decode() for chunk in found[: len(found) - len(whole)]) == REST
    assert "a prompt is restored at the start: " in capfd.readouterr().err


def test_0_9_files_that_are_refused_are_a_line_each_and_nothing_is_restored(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    foreign, damaged = tmp_path / "foreign", tmp_path / "9.plait-prompt"
    llm_http_prompts.save(foreign, Kept("0" * 32, (1, 2, 3), "Hi"))
    damaged.write_bytes(foreign.read_bytes()[:-1])
    with keeping(tmp_path, "-R", str(foreign)) as bare:
        assert chunks(bare, PROMPT, cache=9, **GREEDY) == chunks(server, PROMPT, **GREEDY)
    log = capfd.readouterr().err
    assert f"--restore-prompt {foreign} is not restored: kept for another model, {'0' * 32}; this one is " in log
    assert f"{damaged} is not restored: not a prompt that was kept, or damaged since" in log


def test_0_9_a_file_that_is_not_there_ends_the_start_with_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "plait", "as", "llm-http", "-m", DEMO, "-P", "0", "-R", str(tmp_path / "none")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert ended.returncode == 2
    assert ended.stderr == f"plait: --restore-prompt {tmp_path / 'none'}: No such file or directory\n"


FLAGS = {
    "-P, --port": "8080",
    "-m, --model-path": "required",
    "-f, --float16": "",
    "-t, --num-threads": "all cores",
    "-n, --num-ctx-tokens": "2048",
    "-b, --batch-size": "8",
    "-r, --repeat-last-n": "64",
    "-p, --repeat-penalty": "1.3",
    "-T, --temp": "0.8",
    "-k, --top-k": "40",
    "--top-p": "0.95",
    "-R, --restore-prompt": "",
    "-V, --version": "",
    "-h, --help": "",
}


def test_0_10_the_flags_have_their_defaults() -> None:
    shown = " ".join(CliRunner().invoke(command, ["--help"], terminal_width=300).output.split())
    for flag, default in FLAGS.items():
        help = shown[shown.index(f" {flag} ") :]
        assert default in help[: help.find(" -", len(flag) + 2)]


def test_0_10_the_long_names_choose_what_is_not_said(server: Server) -> None:
    port = free_port()
    flags = f"--port={port} --model-path=plait-demo --num-threads=1 --float16 --num-ctx-tokens=512 --batch-size=16"
    flags += " --repeat-last-n=32 --repeat-penalty=100 --temp=5 --top-k=1 --top-p=0.9"
    with running(["as", "llm-http", *flags.split()], port) as named:
        info = named.get("/admin/models").json()[0]["info"]
        assert (info["n_threads"], info["n_ctx"]) == (1, 512)
        assert kv_bytes_per_token(named) == kv_bytes_per_token(server)
        assert said(named) == said(named, temp=0) == said(server, temp=0, repeat_penalty=100)
        assert said(named) != said(named, repeat_penalty=1)
        assert said(named) != said(named, top_k=1000, top_p=1)


def kv_bytes_per_token(server: Server) -> float:
    info = server.get("/admin/models").json()[0]["info"]
    return float(info["kv_bytes"] / info["n_slots"] / info["n_ctx"])


def test_0_11_the_short_names_choose_what_is_not_said() -> None:
    with llm_http(*"-f -n 512 -b 4 -r 0 -p 1 -T 5 -k 1".split()) as server:
        assert said(server) == said(server, temp=0)
        assert said(server) != said(server, top_k=1000)


def test_0_11_without_f_the_context_has_32_bits(server: Server) -> None:
    with llm_http() as wide:
        assert kv_bytes_per_token(wide) == 2 * kv_bytes_per_token(server)
        assert ask(wide, num_predict=2).status_code == 200


def test_0_12_the_context_has_n_tokens_and_a_longer_prompt_no_answer(server: Server) -> None:
    long = "the " * 300
    with llm_http("-n", "256") as small:
        assert small.get("/admin/models").json()[0]["info"]["n_ctx"] == 256
        assert chunks(small, long) == []
        assert chunks(small, "the " * 100)
    assert chunks(server, long)


@pytest.mark.parametrize("headers", [{}, {"content-type": "text/plain"}, {"content-type": "application/json"}])
def test_0_13_nobody_asks_for_a_content_type(server: Server, headers: dict[str, str]) -> None:
    assert post(server, b'{"prompt": "Once", "num_predict": 0}', **headers).text == "\nOnce\n"


def test_0_13_but_a_page_of_another_origin_has_to_say_it(server: Server) -> None:
    body, page = b'{"prompt": "Once", "num_predict": 0}', {"origin": "http://evil.example"}
    assert post(server, body, **page, **{"content-type": "text/plain"}).status_code == 400


def test_requests_are_answered_together(server: Server) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: ask(server, f"{PROMPT} {i}", num_predict=16), range(8)))
    assert all(answer.text.replace("\n", "").startswith(f"{PROMPT} {i}") for i, answer in enumerate(answers))


def test_other_servers_answer_it_under_its_name(server: Server) -> None:
    assert post(server, b'{"prompt": "Once", "num_predict": 0}', path="/llm-http/stream").text == "\nOnce\n"
