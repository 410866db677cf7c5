"""Control tokens in an answer, with a real worker that is made to say them."""

from pathlib import Path

import pytest

from plait.config import Config, Engine, Models
from plait.fleet.local import LocalFleet
from plait.protocol import Done, RawPrompt, Request, Sampling, Text
from tests.native import models

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("spells", "said"), [(False, ""), (True, "<|im_start|>" * 2)])
async def test_they_are_written_out_for_who_asks(tmp_path: Path, spells: bool, said: str) -> None:
    models.write_llama(tmp_path / "tiny.gguf")
    only = Sampling(temperature=0, logit_bias={models.TURN_START: 100})
    request = Request(prompt=RawPrompt("Hi"), max_tokens=2, sampling=only, spells_control=spells)
    engine = Engine(threads=1, ctx_size=256, slots=1, cache_disk=0)
    fleet = LocalFleet(Config(models=Models(model=(str(tmp_path / "tiny.gguf"),)), engine=engine))
    try:
        await fleet.start()
        texts = [event.text async for event in fleet.generate(None, request) if isinstance(event, Text | Done)]
    finally:
        await fleet.close()
    assert "".join(texts) == said
