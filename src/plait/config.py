"""All settings, each declared once. Flag, variable, TOML key, check, help line and reference page follow from it.

A flag wins over `PLAIT_*`, that over the TOML file, that over the default. The long flag is the field's name with
dashes; a `bool` that is true by default gets `--no-NAME`. Field names are unique over all sections. Values are
checked one by one, where it is still known who said them; what the machine makes of them is not known here.
"""

import difflib
import math
import os
import re
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

_SHARES = r"^(\d+(\.\d+)?(,\d+(\.\d+)?){0,15})?$"
"""Numbers with commas between them, one per GPU; llama.cpp knows at most 16."""

CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
KVLayout = Literal["auto", "split", "unified"]
Routing = Literal["prefix", "round-robin"]
BitNetHead = Literal["q8_0", "f16"]
I2SLayout = Literal["x86", "arm"]


class ConfigError(ValueError):
    """A setting that cannot be used; the message begins with where it was said."""


def option(
    description: str,
    short: str | None = None,
    *,
    unit: Literal["bytes"] | None = None,
    ge: float | None = None,
    le: float | None = None,
) -> Meta:
    """What a setting's declaration carries. With `unit="bytes"` it may be said as `8GiB`."""
    return Meta(description=description, ge=ge, le=le, extra={"short": short, "unit": unit})


class Server(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Listening and admission."""

    host: Annotated[str, option("address to listen on")] = "127.0.0.1"
    port: Annotated[int, option("port to listen on; 0: any free one", ge=0, le=65535)] = 8080
    listen: Annotated[tuple[str, ...], option("listen here instead: unix:///path or tcp://host:port; may repeat")] = ()
    api_key: Annotated[tuple[str, ...], option("a key that requests must carry; may repeat")] = ()
    admin_key: Annotated[
        tuple[str, ...], option("a key that loading and stopping models needs; none: any API key does; may repeat")
    ] = ()
    cors_origin: Annotated[
        tuple[str, ...], option("a browser origin that may call --dialect's paths, or *; may repeat; none by default")
    ] = ()
    dialect: Annotated[tuple[str, ...], option("whose paths are at the root; may repeat, first wins")] = ("openai",)
    max_body: Annotated[int, option("largest request body", unit="bytes", ge=1024, le=48 * 1024**2)] = 4 * 1024**2
    max_queue: Annotated[int, option("requests that may wait for a slot, per model", ge=0, le=1_000_000)] = 512
    max_queue_tokens: Annotated[
        int,
        option("tokens of prompts that may wait to be read, per model; text is a token per 4 letters", ge=1, le=2**40),
    ] = 1_048_576
    max_connections: Annotated[int, option("clients that may be connected at once", ge=1, le=1_000_000)] = 4096
    deadline: Annotated[
        float,
        option("seconds that a request may take in all; 0: any; X-Request-Timeout asks for less", ge=0, le=86_400),
    ] = 0.0
    header_timeout: Annotated[float, option("seconds for a request's headers to arrive", ge=0.1, le=86_400)] = 10.0
    body_timeout: Annotated[float, option("seconds for a request's body to arrive", ge=0.1, le=86_400)] = 30.0
    write_timeout: Annotated[
        float, option("seconds that a client may take nothing of its answer", ge=0.1, le=86_400)
    ] = 30.0
    drain_timeout: Annotated[float, option("seconds that running answers get after SIGTERM", ge=0, le=86_400)] = 30.0


class Models(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which models, and how much memory they may take."""

    model: Annotated[
        tuple[str, ...],
        option(
            "file.gguf, hf:owner/repo[:quant], a name on this machine, or name=any; may repeat; none: the demo", "-m"
        ),
    ] = ()
    replicas: Annotated[int, option("worker processes per model", ge=1, le=64)] = 1
    routing: Annotated[
        Routing, option("which replica gets a request: the one that knows most of its prompt, or each in its turn")
    ] = "prefix"
    memory_budget: Annotated[
        int, option("memory for weights and KV of all models; 0: 60 % of what is free", unit="bytes", ge=0, le=2**50)
    ] = 0
    hang_timeout: Annotated[
        float, option("seconds without a step after which a worker is replaced", ge=1, le=86_400)
    ] = 15.0
    bitnet_head: Annotated[
        BitNetHead, option("what BitNet's output head is converted to; f16: as it is in the file, and slower")
    ] = "q8_0"
    i2s_layout: Annotated[
        I2SLayout, option("what kind of machine an i2_s file was quantized on; the official ones: x86")
    ] = "x86"


PATIENT_PROBE_SECONDS = 600.0


class Engine(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One worker's context and kernels."""

    ctx_size: Annotated[int, option("tokens per slot; 0: from the model and the memory", "-c", ge=0, le=2**24)] = 0
    slots: Annotated[int, option("sequences decoded together; 0: from the memory", ge=0, le=256)] = 0
    threads: Annotated[int, option("threads for decoding; 0: all cores, shared among replicas", "-t", ge=0, le=512)] = 0
    threads_batch: Annotated[int, option("threads for prompts; 0: as --threads", "-tb", ge=0, le=512)] = 0
    batch_size: Annotated[int, option("most prompt tokens of one step", "-b", ge=64, le=2**20)] = 2048
    ubatch_size: Annotated[int, option("most tokens of one pass over the weights", "-ub", ge=64, le=2**20)] = 512
    cont_batching: Annotated[bool, option("a new prompt does not wait until nobody writes")] = True
    itl_target_ms: Annotated[
        int, option("while somebody writes, prompts take at most this long a step", ge=1, le=60_000)
    ] = 100
    n_gpu_layers: Annotated[int, option("layers on the GPU; -1: all", "-ngl", ge=-1, le=1024)] = -1
    main_gpu: Annotated[int, option("the GPU for what is not split", "-mg", ge=0, le=15)] = 0
    tensor_split: Annotated[str, option("share per GPU, such as 3,1", "-ts"), Meta(pattern=_SHARES)] = ""
    mlock: Annotated[bool, option("keep the model in RAM")] = False
    mmap: Annotated[bool, option("map the file instead of reading it")] = True
    numa: Annotated[Literal["", "distribute", "isolate", "numactl"], option("NUMA placement")] = ""
    cache_type_k: Annotated[CacheType, option("type of the K cache", "-ctk")] = "f16"
    cache_type_v: Annotated[CacheType, option("type of the V cache", "-ctv")] = "f16"
    rope_freq_base: Annotated[float, option("RoPE's base frequency; 0: the model's", ge=0, le=1e12)] = 0.0
    rope_freq_scale: Annotated[float, option("RoPE's frequency scale; 0: the model's", ge=0, le=1e6)] = 0.0
    lora: Annotated[tuple[str, ...], option("a LoRA adapter: file.gguf or file.gguf=scale; may repeat")] = ()
    kv_layout: Annotated[
        KVLayout,
        option("a KV cache of its own for each slot, or one pool for all; auto: a pool, if the slots do not all fit"),
    ] = "auto"
    kv_cells: Annotated[
        int, option("tokens in the pool of --kv-layout unified; 0: from the memory", ge=0, le=2**30)
    ] = 0
    cache_ram: Annotated[
        int,
        option("RAM per worker for prefixes of ended requests; 0: none; -1: a quarter of what is free", unit="bytes"),
        Meta(ge=-1, le=2**50),
    ] = -1
    cache_disk: Annotated[int, option("disk per model for prefixes; 0: none", unit="bytes", ge=0, le=2**50)] = (
        8 * 1024**3
    )
    cache_dir: Annotated[str, option("where prefixes are kept; empty: plait/segments in the user's cache")] = ""
    cache_shared: Annotated[bool, option("API keys share prefixes; timing then tells what others have asked")] = False
    prefix_sharing: Annotated[bool, option("reuse prefixes that were computed before")] = True
    reproducible: Annotated[
        bool, option("the same request gets the same text at any load, also after a crash; refused if a model cannot")
    ] = False
    probe_seconds: Annotated[
        float,
        option("for finding out, at a model's first starts, if it is reproducible; 0: not asked", ge=0, le=3600),
    ] = 2.0
    sandbox: Annotated[bool, option("workers give up network, files and programs that they do not need")] = True

    @property
    def most_probe_seconds(self) -> float:
        """What a probe may take; with `reproducible` it has to come to an end."""
        return max(self.probe_seconds, PATIENT_PROBE_SECONDS if self.reproducible else 0.0)


class Log(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is written to standard error."""

    log_level: Annotated[Literal["debug", "info", "warning", "error"], option("least severity that is shown")] = "info"


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything, by section; a section is a TOML table."""

    models: Models = Models()
    engine: Engine = Engine()
    server: Server = Server()
    log: Log = Log()


class Option(Struct, frozen=True):
    """One leaf of `Config`, as a command line, a reference page or a check wants it."""

    section: str
    name: str
    kind: Any
    """The type with its limits, for `msgspec.convert`."""
    default: Any
    help: str
    short: str | None
    is_bytes: bool

    @property
    def is_flag(self) -> bool:
        return isinstance(self.default, bool)

    @property
    def repeats(self) -> bool:
        return isinstance(self.default, tuple)

    @property
    def long(self) -> str:
        """The long flag; the one that changes the default, for a bool."""
        no = "no-" if self.default is True else ""
        return f"--{no}{self.name.replace('_', '-')}"

    @property
    def shown(self) -> str:
        """The long flag as help shows it: of a bool, both ways in one."""
        return f"--[no-]{self.name.replace('_', '-')}" if self.is_flag else self.long

    @property
    def variable(self) -> str:
        return f"PLAIT_{self.name.upper()}"

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that may be said, where only certain ones may."""
        plain = typing.get_args(self.kind)[0]
        return typing.get_args(plain) if typing.get_origin(plain) is Literal else ()

    @property
    def expected(self) -> str:
        """What may be said, in words."""
        limits, *more = self.kind.__metadata__
        if self.is_bytes:
            return "a size such as 8GiB" + _between(limits, format_bytes)
        if self.choices:
            return "one of " + ", ".join(choice or "''" for choice in self.choices)
        match self.default:
            case bool():
                return "true or false"
            case int():
                return "a whole number" + _between(limits)
            case float():
                return "a number" + _between(limits)
            case tuple():
                return "a list of texts"
            case _:
                return " ".join(["a text", *(f"that matches {meta.pattern}" for meta in more)])


def _between(limits: Meta, say: Callable[[float], str] = str) -> str:
    if limits.ge is None or limits.le is None:
        return ""
    return f" from {say(limits.ge)} to {say(limits.le)}"


def options() -> Iterator[Option]:
    """Every setting, in the order of declaration."""
    for section in msgspec.structs.fields(Config):
        hints = typing.get_type_hints(section.type, include_extras=True)
        for field in msgspec.structs.fields(section.type):
            meta: Meta = hints[field.name].__metadata__[0]
            extra: Mapping[str, Any] = meta.extra or {}
            yield Option(
                section.name,
                field.name,
                hints[field.name],
                field.default,
                meta.description or "",
                extra["short"],
                extra["unit"] == "bytes",
            )


def load(
    flags: Mapping[str, object] = types.MappingProxyType({}),
    env: Mapping[str, str] = os.environ,
    file: Path | None = None,
) -> Config:
    """The settings in force. `flags` holds only what was said, by field name. Raises `ConfigError`."""
    tables = _read(file) if file else {}
    values: dict[str, dict[str, object]] = {opt.section: {} for opt in options()}
    for opt in options():
        for source, value in _said(opt, flags, env, tables, file):
            values[opt.section][opt.name] = _convert(opt, source, value)
            break
    config = msgspec.convert(values, Config)
    if config.engine.kv_layout == "split" and config.engine.kv_cells:
        raise ConfigError("--kv-cells is the size of a pool, and with --kv-layout split there is none")
    return config


def _read(file: Path) -> dict[str, Any]:
    """The file's tables, of which all names are known."""
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from error
    sections = {opt.section: {other.name for other in options() if other.section == opt.section} for opt in options()}
    for section, table in tables.items():
        if section not in sections or not isinstance(table, dict):
            raise ConfigError(f"{file}: {section}: no such section; there are {', '.join(sections)}")
        for name in table:
            if name not in sections[section]:
                raise ConfigError(f"{file}: {section}.{name}: no such option{_meant(name, sections[section])}")
    return tables


def _meant(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else ""


def _said(
    opt: Option, flags: Mapping[str, object], env: Mapping[str, str], tables: dict[str, Any], file: Path | None
) -> Iterator[tuple[str, object]]:
    """Where a setting was said, and what; the strongest first. An empty variable says nothing."""
    if opt.name in flags:
        yield opt.long, flags[opt.name]
    if text := env.get(opt.variable):
        yield opt.variable, [part for part in text.split(",") if part] if opt.repeats else text
    if opt.name in tables.get(opt.section, {}):
        yield f"{file}: {opt.section}.{opt.name}", tables[opt.section][opt.name]


def _convert(opt: Option, source: str, value: object) -> object:
    if opt.is_bytes and isinstance(value, str):
        value = parse_bytes(value, source)
    try:
        converted = msgspec.convert(value, opt.kind, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: expected {opt.expected}, got {value!r}") from error
    if opt.repeats and not all(text.strip() for text in converted):
        raise ConfigError(f"{source}: none of them may be empty")  # what they are is not told: they may be keys
    return converted


def parse_bytes(text: str, source: str) -> int:
    """`1048576`, `1MiB`, `1M` or `1.5GB`, where K, M, G and T count in powers of 1024."""
    found = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,9})?)\s*([kmgt]?)(?:i?b)?\s*", text, re.IGNORECASE)
    if not found:
        raise ConfigError(f"{source}: expected a size such as 8GiB, got {text!r}")
    return int(float(found[1]) * 1024 ** " kmgt".index(found[2].lower() or " "))


def parse_adapter(spelling: str) -> tuple[str, float]:
    """`file.gguf` or `file.gguf=scale`. What follows the last `=` and is no number belongs to the file's name."""
    path, _, text = spelling.rpartition("=")
    try:
        scale = float(text)
    except ValueError:
        return spelling, 1.0
    return (path, scale) if path and math.isfinite(scale) else (spelling, 1.0)


def format_bytes(n: float) -> str:
    """`512 bytes`, `1.5 MiB`, `24 GiB`: three digits are enough to read."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.3g} {unit}"
        n /= 1024
    return f"{n:,.4g} TiB"
