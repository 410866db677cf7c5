"""`plait as llm-http`: the flags of that program, short as in its README and long as in its code."""

import logging
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click
from msgspec import structs

from plait import __version__, config, gguf, log
from plait.cli.fetching import fetch
from plait.cli.launch import launch
from plait.config import Config, ConfigError
from plait.dialects import llm_http, llm_http_prompts
from plait.dialects.llm_http import DEFAULT, MOST_CANDIDATES, Options, Settings
from plait.dialects.llm_http_prompts import Kept, RefusedPrompt
from plait.fleet.base import Served
from plait.fleet.registry import resolve
from plait.gateway.table import Dialect

ANY = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"
"""Every address of this machine, as far as it knows IPv6."""

logger = logging.getLogger(__name__)

COUNT = click.IntRange(0, MOST_CANDIDATES)
SIZE = click.IntRange(1, MOST_CANDIDATES)


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option(
    "-m", "--model-path", required=True, help="A GGUF file, hf:owner/repo[:quant], or a name on this machine."
)
@click.option("-P", "--port", type=click.IntRange(0, 65535), default=8080, help="Port to listen on.")
@click.option("--host", default=ANY, help="Address to listen on.")
@click.option("-f", "--float16", is_flag=True, help="K and V of the context in 16 bits instead of 32.")
@click.option("-t", "--num-threads", type=click.IntRange(1, 512), show_default="all cores", help="Threads.")
@click.option("-n", "--num-ctx-tokens", type=click.IntRange(1, 2**24), default=2048, help="Tokens of the context.")
@click.option("-b", "--batch-size", type=SIZE, default=DEFAULT.options.n_batch, help="Prompt tokens read at once.")
@click.option(
    "-r", "--repeat-last-n", type=COUNT, default=DEFAULT.repeat_last_n, help="Last tokens that the penalty looks at."
)
@click.option(
    "-p",
    "--repeat-penalty",
    type=click.FloatRange(0.01, 100),
    default=DEFAULT.options.repeat_penalty,
    help="Penalty for repeating a token; 1: none.",
)
@click.option(
    "-T",
    "--temp",
    type=click.FloatRange(0, 100),
    default=DEFAULT.options.temp,
    help="Temperature; 0: always the likeliest token.",
)
@click.option("-k", "--top-k", type=SIZE, default=DEFAULT.options.top_k, help="Choose among so many tokens.")
@click.option(
    "--top-p", type=click.FloatRange(0), default=DEFAULT.options.top_p, help="Choose among so much probability."
)
@click.option(
    "-R", "--restore-prompt", type=click.Path(path_type=Path), help="A kept prompt that every request goes on from."
)
@click.option(
    "--cache-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=llm_http_prompts.default_folder,
    show_default="~/.cache/plait/llm-http",
    help="Where prompts are kept, as N.plait-prompt, for requests that say cache: N. "
    "Their KV is in the prefix cache, in PLAIT_CACHE_DIR.",
)
@click.version_option(__version__, "-V", "--version", prog_name="plait as llm-http", message="%(prog)s %(version)s")
def command(
    model_path: str,
    port: int,
    host: str,
    float16: bool,
    num_threads: int | None,
    num_ctx_tokens: int,
    batch_size: int,
    repeat_last_n: int,
    repeat_penalty: float,
    temp: float,
    top_k: int,
    top_p: float,
    restore_prompt: Path | None,
    cache_dir: Path,
) -> None:
    """Stand in for llm-http: its flags, its port, its path.

    Every other setting of plait serve may be said as PLAIT_NAME in the environment.
    """
    served = configured(model_path, host, port, float16, num_threads, num_ctx_tokens)
    kept = restored(restore_prompt, served) if restore_prompt else None
    options = Options(n_batch=batch_size, top_k=top_k, top_p=top_p, repeat_penalty=repeat_penalty, temp=temp)
    settings = Settings(options, repeat_last_n, cache_dir)
    if kept:
        settings = structs.replace(settings, restored=kept.tokens, restored_from=restore_prompt)
    dialect = Dialect("llm-http", partial(llm_http.routes, settings=settings), llm_http.refuse)
    if kept:
        dialect = dialect._replace(prepare=partial(llm_http.restore, settings))
    launch(served, dialect, say)


def restored(path: Path, served: Config) -> Kept | None:
    """The kept prompt; None, and a line in the log, for one that this model cannot use. Raises `ConfigError` for a file
    that cannot be read, and `PlaitError` for a model that cannot."""
    log.setup(served.log.log_level, "gateway")
    (model,) = served.models.model
    try:
        return llm_http_prompts.load(path, gguf.digest(resolve(model).path))
    except OSError as error:
        raise ConfigError(f"--restore-prompt {path}: {error.strerror}") from error
    except RefusedPrompt as error:
        logger.warning("--restore-prompt %s is not restored: %s", path, error)
        return None


def configured(model: str, host: str, port: int, float16: bool, n_threads: int | None, n_ctx: int) -> Config:
    """What these flags are in Plait's own words. Fetches the model if it is not here."""
    kind = "f16" if float16 else "f32"
    flags = {"model": (model,), "host": host, "port": port, "ctx_size": n_ctx, "cache_type_k": kind}
    if n_threads:
        flags["threads"] = n_threads
    settings = config.load(flags | {"cache_type_v": kind})
    fetch(settings.models.model, settings)
    return settings


def say(served: Sequence[Served], addresses: Sequence[str], seconds: float) -> None:
    """What stands on standard output when requests may come."""
    click.echo(f"{served[0].name} at {', '.join(f'{address}/stream' for address in addresses)}, after {seconds:.1f} s")
