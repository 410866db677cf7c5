"""Makes the documents that are trained on and held out: a seed in, texts out."""

import random
from collections.abc import Iterator

from tools.demo_model.chats import Message, make_chat
from tools.demo_model.stories import tell_scene, tell_story

SPECIAL_TOKENS = ("<|bos|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>")
BOS, END_OF_TEXT, IM_START, IM_END = SPECIAL_TOKENS
CHAT_TEMPLATE = (
    "{% for m in messages %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_STORY_SHARE = 0.42
_SHORT_CHAT_SHARE = 0.5
_SHORT_CHAT_WORDS = 60


def documents(seed: int, n_words: int) -> Iterator[str]:
    """Yield stories and chats until they hold at least this many words."""
    rng = random.Random(seed)
    n_made = 0
    while n_made < n_words:
        text = _story(rng) if rng.random() < _STORY_SHARE else chat_text(make_chat(rng))
        n_made += len(text.split())
        yield f"{BOS}{text}{END_OF_TEXT}"


def short_documents(seed: int, n_documents: int) -> Iterator[str]:
    """Yield scenes and single answers, in which looking back pays at once.

    A network that begins with whole stories learns their sentences first and may not
    learn in time to take a name from the beginning; with these it learns that first.
    """
    rng = random.Random(seed)
    for _ in range(n_documents):
        text = tell_scene(rng)
        if rng.random() < _SHORT_CHAT_SHARE:
            while len((text := chat_text(make_chat(rng, n_turns=1))).split()) > _SHORT_CHAT_WORDS:
                pass
        yield f"{BOS}{text}{END_OF_TEXT}"


def long_chats(seed: int, n_chats: int) -> Iterator[str]:
    """Yield chats that fill the whole context."""
    rng = random.Random(seed)
    for _ in range(n_chats):
        yield f"{BOS}{chat_text(make_chat(rng, n_turns=60))}{END_OF_TEXT}"


def chat_text(messages: list[Message]) -> str:
    """Write a chat as the chat template does."""
    return "".join(f"{IM_START}{m.role}\n{m.content}{IM_END}\n" for m in messages)


def _story(rng: random.Random) -> str:
    return tell_story(rng, is_short=rng.random() < 0.3).text
