"""E: URLs, files and names that a client may write."""

import pytest

from tests.inputs.asking import HTTP, TALE, chat, is_refused, n_prompt, post
from tests.serving import Server

URLS = [
    "http://169.254.169.254/latest/meta-data",
    "http://[::1]:8080/admin/models",
    "http://2130706433/",
    "http://localhost\\@evil.example/",
    "https://evil.example/a.png",
    "file:///etc/passwd",
    "data:image/png;base64,iVBORw0KGgo=",
]


@pytest.mark.parametrize("url", URLS)
def test_e1_nothing_is_fetched(server: Server, url: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    assert is_refused(chat(server, [{"type": "text", "text": "What is it?"}, part]), "messages[0].content[1]")


def test_e2_a_link_in_a_text_is_text(server: Server) -> None:
    assert n_prompt(chat(server, "![](http://169.254.169.254/latest) [a](http://evil.example)")) > 20


NAMES = [
    "../../etc/passwd",
    "/etc/passwd",
    "a\0b",
    "a:b",
    "x" * 300,
    "..\u2215etc",
    "hf:evil/model",
    "http://evil.example/x",
]


@pytest.mark.parametrize("name", [*NAMES, "plait-demo=/etc/passwd", "plait-demo.gguf", "", "PLAIT-DEMO", "."])
def test_e4_e5_a_model_is_one_of_those_served(server: Server, name: str) -> None:
    assert is_refused(post(server, prompt=TALE, model=name), "model", 404)
    assert is_refused(chat(server, TALE, model=name), "model", 404)


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "hf:evil%2fmodel", "a%00b", "%ff"])
def test_e5_nor_is_a_path_of_ours(server: Server, name: str) -> None:
    assert is_refused(HTTP.get(f"{server.url}/v1/models/{name}"), status=404)
    assert is_refused(HTTP.delete(f"{server.url}/admin/models/{name}"), status=404)


@pytest.mark.parametrize(
    "source", ["/etc/passwd", "/dev/zero", "/proc/self/mem", "/", "a\0b", "x" * 5000, "\ufffd.gguf", ""]
)
def test_e5_the_operator_names_models_only(server: Server, source: str) -> None:
    answer = post(server, "/admin/models", model=source)
    assert answer.status_code in (400, 404), answer.text
    assert answer.json()["error"]["code"] in ("model_not_found", "invalid_model")
