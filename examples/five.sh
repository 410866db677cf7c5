#!/usr/bin/env bash
# Starts Plait in the place of each of the five programs in turn, as that program's README does, asks what the README
# asks, and prints what comes back.     examples/five.sh [MODEL]
# The ports are the READMEs', unless PORTS names five others: PLAIT_LISTEN outdoes the flags.
set -euo pipefail
cd "$(dirname "$0")/.."

model=${1:-src/plait/demo/plait-demo.gguf}
read -r llm_http sentient srb parallel bitnet <<<"${PORTS:-8081 3000 9090 8080 8000}"
plait=${PLAIT:-.venv/bin/plait}
kept=$(mktemp -d)
server=

stop() { if [ -n "$server" ]; then kill "$server" && wait "$server"; server=; fi; }
trap 'stop || true; rm -rf "$kept"' EXIT

# start PORT COMMAND…: run a launcher, for this machine only, until it is ready.
start() {
    local port=$1
    shift
    printf '\n\n== plait %s\n' "$*"
    PLAIT_LISTEN="tcp://127.0.0.1:$port" "$plait" "$@" >/dev/null &
    server=$!
    until curl -sf --max-time 5 "127.0.0.1:$port/${READY:-readyz}" >/dev/null; do
        kill -0 "$server" || exit 1
        sleep 0.2
    done
}

# ask ARGUMENTS…: what is given to curl, said and done. An error, or silence, ends the script.
ask() { printf '\n$ curl %s\n' "$*"; curl -sSfN --max-time 60 "$@"; }

json='Content-Type: application/json'

# What this README calls "cache" is kept on disk: here, only until the end of the script.
XDG_CACHE_HOME=$kept start "$llm_http" as llm-http -m "$model" -f -P 8081
ask -X POST "http://localhost:$llm_http/stream" -d '{
  "num_predict": 64,
  "prompt": "Once upon a time",
  "n_batch": 16,
  "top_k": 50,
  "top_p": 0.9,
  "repeat_penalty": 1.5,
  "temp": 0.7,
  "cache": 42
}'
stop

READY=livez start "$sentient" as sentient
ask -X POST "http://127.0.0.1:$sentient/load_model" -H "$json" \
    -d "{\"model_name\": \"llama3-8b\", \"model_path\": \"$model\"}"
ask -X POST "http://127.0.0.1:$sentient/completions" -H "$json" \
    -d '{"model": "llama3-8b", "prompt": "Hello, world!", "max_tokens": 10, "seed": 42, "n_threads": 4, "n_ctx": 512}'
ask "http://127.0.0.1:$sentient/status"
stop

start "$srb" as srb --model "$model"
ask -X POST -H 'Content-type: application/json' "http://localhost:$srb/v1/completions" \
    -d '{ "prompt": "Once upon a time," }'
stop

# Without a GPU, -ngl 33 changes nothing.
start "$parallel" as server-parallel -m "$model" --ctx_size 2048 -t 4 -ngl 33 --batch-size 512 --parallel 3 -n 512 \
    --cont-batching
ask "http://127.0.0.1:$parallel/props"
ask -X POST "http://127.0.0.1:$parallel/completion" -d '{
    "system_prompt": "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user'"'"'s questions.\n\nHuman: Hello\nAssistant: Hi, how may I help you?\nHuman:",
    "anti_prompt": "Human:",
    "assistant_name": "Assistant:",
    "prompt": "When is the day of independency of US?",
    "temperature": 0.2
}'
ask "http://127.0.0.1:$parallel/props"
stop

start "$bitnet" as bitnet -m "$model"
ask -X POST "http://localhost:$bitnet/generate" -H "$json" -d '{
    "prompt": "What is machine learning?",
    "system_prompt": "You are a helpful AI assistant that provides clear and concise explanations about technical topics.",
    "max_tokens": 256,
    "temperature": 0.7
  }'
ask "http://localhost:$bitnet/health"
ask "http://localhost:$bitnet/model_info"
stop
printf '\n'
