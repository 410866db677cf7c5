"""Runs in the rival's environment, not in ours: starts llama.cpp's server with the options in its one argument."""

import importlib
import json
import signal
import sys


def main() -> None:
    xllamacpp = importlib.import_module("xllamacpp")
    options = json.loads(sys.argv[1])
    params = xllamacpp.CommonParams()
    params.model.path = options["model"]
    params.n_parallel = options["n_slots"]
    params.n_ctx = options["n_ctx"]
    params.kv_unified = options["is_unified"]
    params.endpoint_metrics = True
    params.endpoint_slots = True
    params.port = 0
    if options["n_batch"]:
        params.n_batch = params.n_ubatch = options["n_batch"]
    if not options["has_host_cache"]:
        params.cache_ram_mib, params.cache_idle_slots = 0, False
    if options["is_greedy"]:  # the other samplers of its chain look at all candidates even at temperature 0
        params.sampling.samplers = "temperature"
    if options["slots_path"]:
        params.slot_save_path = options["slots_path"]
    server = xllamacpp.Server(params)
    print(f"listens at {server.listening_address}\n", end="", flush=True)  # in one piece: its threads write there, too
    signal.pause()


if __name__ == "__main__":
    main()
