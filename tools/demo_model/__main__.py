"""Does everything: corpus, tokenizer, training, held-out loss, GGUF."""

import argparse
import time
from pathlib import Path

import torch

from tools.demo_model.baselines import bigram_loss, unigram_loss
from tools.demo_model.corpus import documents, long_chats, short_documents
from tools.demo_model.export import write_gguf
from tools.demo_model.model import n_parameters
from tools.demo_model.tokens import N_VOCAB, pack, train_tokenizer
from tools.demo_model.train import Data, Plan, held_out_loss, train

_DEMO = Path(__file__).resolve().parents[2] / "src" / "plait" / "demo" / "plait-demo.gguf"
_TRAIN_SEED, _HELD_OUT_SEED, _LONG_SEED, _SHORT_SEED = 1, 2, 3, 4
_LONG_CHATS, _SHORT_DOCUMENTS = 300, 20_000
_TOKENIZER_WORDS, _HELD_OUT_WORDS = 600_000, 50_000


def main() -> None:
    """Make the demo model from nothing."""
    options = _options()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    def report(line: str) -> None:
        print(f"[{time.monotonic() - started:6.0f} s] {line}", flush=True)

    tokenizer = train_tokenizer(documents(_TRAIN_SEED, _TOKENIZER_WORDS))
    tokenizer.save(str(options.work / "tokenizer.json"))
    ids = pack(tokenizer, documents(_TRAIN_SEED, options.words))
    held_out = pack(tokenizer, documents(_HELD_OUT_SEED, _HELD_OUT_WORDS))
    report(f"{options.words} words, {len(ids)} tokens; {len(held_out)} held out")
    report(f"unigram {unigram_loss(ids, held_out, N_VOCAB):.4f}")
    report(f"bigram {bigram_loss(ids, held_out, N_VOCAB):.4f}")

    short = pack(tokenizer, short_documents(_SHORT_SEED, _SHORT_DOCUMENTS))
    long = pack(tokenizer, long_chats(_LONG_SEED, _LONG_CHATS))
    data = Data(short, ids, long, held_out)
    for model in train(data, Plan(n_steps=options.steps, n_stop=options.stop), report):
        torch.save(model.state_dict(), options.work / "model.pt")
    report(f"{n_parameters(model)} parameters")
    for n_row in (512, 2048):
        report(f"held out, rows of {n_row}: {held_out_loss(model, held_out, n_row):.4f}")
    write_gguf(options.output, model, tokenizer)
    report(f"wrote {options.output}, {options.output.stat().st_size} bytes")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools.demo_model", description=__doc__)
    parser.add_argument("--words", type=int, default=5_000_000, help="words to train on")
    parser.add_argument("--steps", type=int, default=Plan.n_steps, help="training steps")
    parser.add_argument("--stop", type=int, default=Plan.n_stop, help="step to stop after")
    parser.add_argument("--work", type=Path, default=Path("build"), help="folder for by-products")
    parser.add_argument("--output", type=Path, default=_DEMO, help="the GGUF to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
