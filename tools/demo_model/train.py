"""Trains the network on packed token ids: short rows first, full context at the end."""

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor
from torch.nn import functional

from tools.demo_model.model import BOS_ID, Llama, Shape

Report = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How long to train and how."""

    n_steps: int = 1800
    n_stop: int = 1800
    n_tokens_step: int = 4096
    n_short_row: int = 256
    n_row: int = 512
    n_long_row: int = 2048
    n_tokens_part: int = 1024
    n_workers: int = 2
    long_share: float = 0.1
    peak_rate: float = 3e-3
    n_warm_up: int = 50
    n_short_steps: int = 200
    decay_share: float = 0.45
    weight_decay: float = 0.1
    clip: float = 1.0
    seed: int = 7

    def rate(self, step: int) -> float:
        """Return the share of the peak rate: warm up, stay, then fall along a cosine."""
        if step < self.n_warm_up:
            return (step + 1) / self.n_warm_up
        n_decay = self.n_steps * self.decay_share
        fallen = max(0.0, (step - (self.n_steps - n_decay)) / n_decay)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fallen))


@dataclass(frozen=True)
class Data:
    """Packed token ids: to begin with, to train on, to fill the context, to test with."""

    short: numpy.ndarray
    mixed: numpy.ndarray
    long_chats: numpy.ndarray
    held_out: numpy.ndarray


def train(data: Data, plan: Plan, report: Report) -> Iterator[Llama]:
    """Train a new network from a fixed seed; yield it now and then, and at the end."""
    torch.manual_seed(plan.seed)
    model = Llama(Shape())
    optimizers = _optimizers(model, plan)
    meter = _Meter(plan, report)
    with ThreadPoolExecutor(plan.n_workers, initializer=torch.set_num_threads, initargs=(1,)) as workers:
        for step, parts in enumerate(_batches(data, plan)):
            loss = _backward(model, parts, workers)
            torch.nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * plan.rate(step)
                optimizer.step()
            meter.count(step, loss)
            if step % 200 == 199:
                loss = held_out_loss(model, data.held_out[:32_768], plan.n_row)
                report(f"held out {loss:.4f}")
                yield model
    yield model


class _Meter:
    """Reports a smoothed loss and the pace; owned by one training run."""

    def __init__(self, plan: Plan, report: Report) -> None:
        self._plan = plan
        self._report = report
        self._started = time.monotonic()
        self._loss: float | None = None

    def count(self, step: int, loss: float) -> None:
        self._loss = loss if self._loss is None else 0.97 * self._loss + 0.03 * loss
        if step % 50 != 49:
            return
        seconds = time.monotonic() - self._started
        pace = (step + 1) * self._plan.n_tokens_step / seconds
        self._report(f"step {step + 1}/{self._plan.n_steps} loss {self._loss:.4f} {pace:.0f} tokens/s {seconds:.0f} s")


def _backward(model: Llama, parts: list[Tensor], workers: ThreadPoolExecutor) -> float:
    """Set every gradient of a batch; workers take its parts as they get free.

    Parts are handed out instead of splitting each operation over threads, so that a
    busy machine slows one part and not every operation. They are summed in order,
    so that the result does not depend on who was first.
    """
    weights = list(model.parameters())
    n_tokens = sum(part[:, 1:].numel() for part in parts)

    def differentiate(part: Tensor) -> tuple[float, tuple[Tensor, ...]]:
        loss = _loss(model, part) * (part[:, 1:].numel() / n_tokens)
        return loss.item(), torch.autograd.grad(loss, weights)

    done = list(workers.map(differentiate, parts))
    for weight, *gradients in zip(weights, *(gradients for _, gradients in done), strict=True):
        weight.grad = sum(gradients[1:], gradients[0])
    return sum(loss for loss, _ in done)


def held_out_loss(model: Llama, ids: numpy.ndarray, n_row: int) -> float:
    """Return the mean loss in nats per token over rows of this length."""
    model.eval()
    n_rows = (len(ids) - 1) // n_row
    rows = numpy.stack([ids[i * n_row : (i + 1) * n_row + 1] for i in range(n_rows)])
    chunks = torch.split(torch.from_numpy(rows.astype(numpy.int64)), max(1, 8192 // n_row))
    with torch.no_grad():
        losses: list[tuple[int, float]] = [(len(chunk), _loss(model, chunk).item()) for chunk in chunks]
    model.train()
    return sum(n * loss for n, loss in losses) / n_rows


def _optimizers(model: Llama, plan: Plan) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices inside the blocks and AdamW for everything else."""
    matrices = [weight for weight in model.blocks.parameters() if weight.dim() == 2]
    norms = [weight for weight in model.parameters() if weight.dim() == 1]
    muon = torch.optim.Muon(
        [{"params": matrices, "peak": plan.peak_rate}],
        weight_decay=plan.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    adamw = torch.optim.AdamW(
        [{"params": [model.token_embd.weight, *norms], "peak": plan.peak_rate}],
        betas=(0.9, 0.95),
        weight_decay=0.0,
        fused=True,
    )
    return [muon, adamw]


def _batches(data: Data, plan: Plan) -> Iterator[list[Tensor]]:
    """Yield each step's parts: rows that begin with a document, each one token longer."""
    rng = numpy.random.default_rng(plan.seed)
    short = _Rows(rng, data.short, plan.n_short_row)
    mixed = _Rows(rng, data.mixed, plan.n_row)
    long_chats = _Rows(rng, data.long_chats, plan.n_long_row)
    for step in range(min(plan.n_stop, plan.n_steps)):
        is_long = step >= plan.n_steps * (1 - plan.long_share)
        parts = [long_chats.take(1)] if is_long else []
        while sum(part[:, 1:].numel() for part in parts) < plan.n_tokens_step:
            source = short if step < plan.n_short_steps else mixed
            parts.append(source.take(plan.n_tokens_part // source.n_row))
        yield parts


class _Rows:
    """Takes rows of one length from packed ids, each from a document's start."""

    def __init__(self, rng: numpy.random.Generator, ids: numpy.ndarray, n_row: int) -> None:
        self._rng = rng
        self._ids = ids
        self.n_row = n_row
        self._starts = numpy.flatnonzero(ids[: -n_row - 1] == BOS_ID)

    def take(self, n_rows: int) -> Tensor:
        starts = self._rng.choice(self._starts, n_rows)
        rows = [self._ids[start : start + self.n_row + 1] for start in starts]
        return torch.from_numpy(numpy.stack(rows).astype(numpy.int64))


def _loss(model: Llama, rows: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(rows[:, :-1])
    return functional.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())
