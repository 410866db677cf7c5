"""Checks the finished GGUF in llama.cpp; not part of making it.

Run with llama-cpp-python, gguf's `tokenizers` and torch installed. Prints a JSON
summary last; a failed check ends the program with an error.
"""

import argparse
import json
from itertools import islice
from pathlib import Path

import numpy
import torch
from llama_cpp import Llama as Engine
from tokenizers import Tokenizer

from tools.demo_model.chats import Message
from tools.demo_model.corpus import BOS, END_OF_TEXT, IM_END, IM_START, chat_text, documents
from tools.demo_model.model import Llama, Shape

_SAMPLES, _LONGEST, _IM_END_ID = 100, 600, 3
_ODD_TEXTS = (
    "",
    " ",
    "  two  spaces\n\n\ttab",
    "naïve café 北京 🦊",
    "it's 1,234.5 (or so)…",
    "a\x7fb",
)
_QUESTIONS = (
    "Hello!",
    "hi",
    "How are you today?",
    "What is your name?",
    "who are you",
    "What can you do?",
    "Tell me a story about a fox.",
    "tell me a story about a robot named Bolt",
    "A story please",
    "What colour is the sky?",
    "can you help me?",
    "What is quantum entanglement?",
    "Say banana",
    "My name is Robin.",
    "What is the capital of France?",
    "Write a Python function.",
    "2+2",
    "Who won the world cup?",
    "thanks!",
    "Goodbye",
)


def main() -> None:
    """Run every check."""
    options = _options()
    tokenizer = Tokenizer.from_file(str(options.work / "tokenizer.json"))
    engine = Engine(str(options.gguf), n_ctx=2048, n_threads=1, logits_all=True, verbose=False, seed=1)
    summary: dict[str, object] = {"texts_tokenized_alike": _check_tokens(engine, tokenizer)}
    summary |= _compare_logits(engine, tokenizer, options.work / "model.pt")
    summary["stories_that_end"] = f"{_count_stories(engine)} of {_SAMPLES}"
    summary["answers_that_end"] = f"{_count_answers(engine)} of {len(_QUESTIONS)}"
    print(json.dumps(summary))


def _check_tokens(engine: Engine, tokenizer: Tokenizer) -> int:
    """Tokenize with both; return how many texts agreed, which must be all."""
    texts = [*_ODD_TEXTS, *islice(documents(3, 1_000_000), 1000)]
    for text in texts:
        ours = tokenizer.encode(text).ids
        theirs = engine.tokenize(text.encode(), add_bos=False, special=True)
        if ours != theirs:
            raise SystemExit(f"tokens differ for {text!r}: {ours} and {theirs}")
    return len(texts)


def _compare_logits(engine: Engine, tokenizer: Tokenizer, weights: Path) -> dict[str, object]:
    """Compare with the trained network before it was quantized."""
    model = Llama(Shape())
    model.load_state_dict(torch.load(weights))
    expected, actual = [], []
    for text in islice(documents(4, 1_000_000), 20):
        ids = tokenizer.encode(text).ids
        with torch.no_grad():
            expected.append(model(torch.tensor([ids]))[0].numpy())
        engine.reset()  # type: ignore[no-untyped-call, unused-ignore]
        engine.eval(ids)
        actual.append(numpy.array(engine.scores[: len(ids)]))
    alike = [e.argmax(-1) == a.argmax(-1) for e, a in zip(expected, actual, strict=True)]
    differences = [abs(e - a).ravel() for e, a in zip(expected, actual, strict=True)]
    agreement = float(numpy.concatenate(alike).mean())
    difference = float(numpy.concatenate(differences).mean())
    if agreement < 0.97:
        raise SystemExit(f"only {agreement:.3f} of the best tokens agree")
    return {"best_tokens_alike": round(agreement, 4), "mean_difference": round(difference, 4)}


def _count_stories(engine: Engine) -> int:
    """Sample stories, print a few, return how many ended by themselves."""
    start = f"{BOS}Once upon a time"
    print(f"--- {_continued(engine, start, 0.0)}\n")
    stories = [_continued(engine, start, 0.8, seed) for seed in range(_SAMPLES)]
    for story in stories[:5]:
        print(f"--- {story}\n")
    n_ended = sum(story.endswith(END_OF_TEXT) for story in stories)
    if n_ended < 0.95 * _SAMPLES:
        raise SystemExit(f"only {n_ended} of {_SAMPLES} stories ended")
    return n_ended


def _count_answers(engine: Engine) -> int:
    """Ask questions, print the answers, return how many ended by themselves."""
    n_ended = 0
    for question in _QUESTIONS:
        start = f"{BOS}{chat_text([Message('user', question)])}{IM_START}assistant\n"
        answer = _continued(engine, start, 0.7)
        n_ended += answer.endswith(IM_END)
        print(f"> {question}\n< {answer.removeprefix(start)}\n")
    return n_ended


def _continued(engine: Engine, start: str, temperature: float, seed: int = 1) -> str:
    """Return a text with its continuation, up to and with the token that ends it."""
    ids = engine.tokenize(start.encode(), add_bos=False, special=True)
    new: list[int] = []
    # Without a new seed every sample would be the same.
    engine.set_seed(seed)
    for token in engine.generate(ids, temp=temperature, top_p=0.95, top_k=0, repeat_penalty=1.0):
        new.append(token)
        if token in (engine.token_eos(), _IM_END_ID) or len(new) == _LONGEST:
            break
    return start + engine.detokenize(new, special=True).decode(errors="replace")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools.demo_model.check", description=__doc__)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--work", type=Path, default=Path("build"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
