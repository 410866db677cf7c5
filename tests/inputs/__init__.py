"""Inputs that crashed, hung or misled other servers, each sent to a real one. A test bears the id of its input.

After each of them (`conftest.unharmed`) a fixed greedy prompt says what it said before, the workers are the same
processes and have hardly grown, and a stream that ran meanwhile has lost nothing. Ids that are not here, or not only:

* C1 ... C10, grammars, schemas and regexes: not served yet. Templates come from model files only, and A15 shows it;
  what a hostile one may do is tests/unit/text/test_template.py's.
* E3 and E6, images and base64: no media are taken, which E1 shows.
* F6, models that are not causal: refused when they are loaded, tests/native/test_model.py.
* G3, whose prompts a request may find in the cache, and which are nobody else's: more of it in
  tests/e2e/test_prefix_cache.py. What can be told by time, `benchmarks/bench_prefix.py` measures.
* G4, tenants' shares of the prefix cache: `test_g4_*` in tests/unit/engine/test_segments.py (RAM) and
  tests/unit/disk/test_shelf.py (disk).
* G5, ids by which a client resumes: there are none, resuming is between gateway and worker.

Where an answer is another than the one that one might expect:

* A3, knobs of other engines: ignored (200) like every unknown field, and not a 400. Clients send what some other server
  knows, and no such knob reaches the engine.
* A10, `max_tokens` past the context: 200, and the answer ends where the context does, with `length`. Many clients
  always send a large number, and mean no limit. Only a prompt that leaves no room is a 400.
* A13, unknown fields are ignored, and no log lists them: a client could write into it what it likes.
* B5 and E4, a NUL or a path as a model's name: 404 like any other name that is not served, and not a 400. Names are
  only compared; none becomes a file's.
* D2, connections are capped together (`--max-connections`), not for each client: behind a proxy all come from one
  address. One client may take all of them for as long as it keeps asking something.
* D6, a Host that is none: 403 where only this machine is served, as for every Host that is not this machine's; with API
  keys, or for other machines, any Host will do. No decision but that one looks at it, and the key is asked for first.
* F5, diskcache is installed, because the binding to libllama wants it, and no process imports it.
"""
