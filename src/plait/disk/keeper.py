"""The disk's thread: takes errands, runs them on the store, and outlives whatever the disk does to it."""

import logging
import os
import sqlite3
import threading
from collections.abc import Callable

from msgspec import Struct

from plait.disk import index as indexes
from plait.disk.errands import Clear, Errand, Errands, Fetch, Pin, Remove, Use, Write
from plait.disk.record import Record
from plait.disk.results import Lost, Read, Why, Written
from plait.disk.store import Refused, Store, now

log = logging.getLogger("plait.disk")

PAUSE_SECONDS = 60.0
"""After a write failed, as on a full disk, nothing is written for so long. Reading goes on."""

NICENESS = 10
"""How far this thread steps back: the cores belong to the kernels, and nobody waits for most of what it does."""


class State(Struct, frozen=True):
    """What `/metrics` tells. Replaced as a whole, so that another thread reads figures of one moment."""

    n_files: int = 0
    n_bytes: int = 0
    is_degraded: bool = False
    """The last write failed, or there is no place to write to."""


class Keeper(threading.Thread):
    """Owns the store from `start()` on. `clock` tells seconds, only for the pause after a failed write."""

    def __init__(self, store: Store, errands: Errands, clock: Callable[[], float]) -> None:
        super().__init__(name="disk", daemon=True)
        self.store = store
        self.errands = errands
        self.clock = clock
        self.used: dict[bytes, int] = {}
        self.is_degraded = not store.is_durable
        self.resume_at = 0.0
        self.state = State()
        self._count()

    def run(self) -> None:
        self._step_back()
        while errand := self.errands.take():
            self._attempt(errand)
            if self.errands.is_empty:
                self._flush()
        self.store.close()

    def _step_back(self) -> None:
        """Linux gives each thread a priority of its own, which it may not raise."""
        id = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, id, max(NICENESS, os.getpriority(os.PRIO_PROCESS, id)))

    def _attempt(self, errand: Errand) -> None:
        """Whatever goes wrong is an answer: requests go on without the disk."""
        try:
            self._obey(errand)
            self._count()
        except (OSError, sqlite3.Error) as error:
            self._trouble(errand, error)
        except Exception:
            log.exception("disk cache: a defect; going on")
            self._give_up(errand, "refused")

    def _obey(self, errand: Errand) -> None:
        match errand:
            case Write(record, payload):
                self._write(record, payload)
            case Fetch(id):
                if found := self.store.load(id):
                    self.errands.tell(Read(*found))
                    self.used[id] = now()
            case Remove(id):
                self.store.drop(id, "bad")
            case Use(ids):
                self.used.update(dict.fromkeys(ids, now()))
            case Clear(scope):
                self.store.clear(scope)
            case Pin(wish):
                self.store.pin(wish)

    def _write(self, record: Record, payload: list[memoryview]) -> None:
        self._flush()
        if self.clock() < self.resume_at:
            self.errands.tell(Lost((record.id,), "failed"))
            return
        try:
            held = self.store.save(record, payload)
        except Refused as reason:
            log.debug("disk cache: %s not written: %s", record.id.hex(), reason)
            self.errands.tell(Lost((record.id,), "refused"))
            return
        self.errands.tell(Written(held))
        if self.is_degraded and self.store.is_durable:
            self.is_degraded = False
            log.info("disk cache in %s: writing again", self.store.folder)

    def _flush(self) -> None:
        """The index learns what was used. Not worth giving up anything for."""
        used, self.used = self.used, {}
        try:
            if used:
                self.store.touch(used)
        except sqlite3.Error as error:
            log.debug("disk cache: the index does not know what was used: %s", error)

    def _trouble(self, errand: Errand, error: OSError | sqlite3.Error) -> None:
        """Said once, until a write succeeds again."""
        self._give_up(errand, "failed")
        if isinstance(error, sqlite3.Error) and indexes.is_broken(error):
            self.store.reopen()
        else:
            self.resume_at = self.clock() + PAUSE_SECONDS
            if not self.is_degraded:
                self.is_degraded = True
                log.warning("disk cache in %s: %s; going on without writing for now", self.store.folder, error)
        self._count()

    def _give_up(self, errand: Errand, why: Why) -> None:
        match errand:
            case Write(record):
                self.errands.tell(Lost((record.id,), why))
            case Fetch(id):
                self.store.forget([id], "gone")
            case Remove() | Use() | Clear() | Pin():
                pass

    def _count(self) -> None:
        try:
            self.state = State(*self.store.index.total(), self.is_degraded)
        except sqlite3.Error as error:
            log.debug("disk cache: the index does not say how much there is: %s", error)
