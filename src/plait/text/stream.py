"""Token bytes → whole characters → text, with stop strings held back. One `TextStream` per choice; knows no tokens."""

import codecs


class TextStream:
    """Owned by one listener. `feed` returns what may be said now; after `is_stopped` nothing more may.

    `keep`: a stop string ends the text behind the token that completes it, instead of before the string; nothing is
    held back then. `after`: as many tokens pass before a stop string can end the text.
    """

    def __init__(self, stops: tuple[str, ...] = (), *, keep: bool = False, after: int = 0) -> None:
        self.stops = stops
        self.keep = keep
        self.stopped_by = ""
        """The stop string that ended the text."""
        self._n_free = after
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    @property
    def is_stopped(self) -> bool:
        return bool(self.stopped_by)

    def feed(self, piece: bytes) -> str:
        """Take one token's bytes. A stop string is found even when it began tokens ago."""
        text = self._decoder.decode(piece)
        is_free = self._n_free > 0
        self._n_free -= is_free
        if not self.stops:
            return text
        if self.keep:
            return self._watch(text, is_free)
        return text if is_free else self._release(text)

    def flush(self) -> str:
        """What was held back, when nothing follows. An incomplete character becomes U+FFFD."""
        rest = self._decoder.decode(b"", final=True)
        if self.is_stopped:
            return ""
        return rest if self.keep else self._held + rest

    def _watch(self, text: str, is_free: bool) -> str:
        """Let the text pass, and keep its end in sight; a stop string may have begun among the free tokens."""
        seen, n_seen_before = self._held + text, len(self._held)
        if not is_free:
            # Of what was seen before, only so much counts that the string ends in what is new.
            ends = (stop for stop in self.stops if stop in seen[max(0, n_seen_before + 1 - len(stop)) :])
            self.stopped_by = next(ends, "")
        self._held = seen[-max(map(len, self.stops)) :]
        return text

    def _release(self, text: str) -> str:
        text = self._held + text
        found = [(at, stop) for stop in self.stops if (at := text.find(stop)) >= 0]
        if found:
            at, self.stopped_by = min(found)
            self._held = ""
            return text[:at]
        n_safe = len(text) - max(held_back(text, stop) for stop in self.stops)
        self._held = text[n_safe:]
        return text[:n_safe]


def held_back(text: str, stop: str) -> int:
    """How many characters at the end of `text` could be the beginning of `stop`."""
    for n in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:n]):
            return n
    return 0
