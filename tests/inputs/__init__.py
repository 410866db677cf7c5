"""Inputs that crashed, hung or misled other servers, each sent to a real one. A test bears the id of its input.

After each of them (`conftest.unharmed`) a fixed greedy prompt says what it said before, the workers are the same
processes, and a stream that ran meanwhile has lost nothing. Ids that are not here:

* C1 ... C10, grammars, schemas and regexes: not served yet. Templates come from model files only, and A15 shows it;
  what a hostile one may do is tests/unit/text/test_template.py's.
* E3 and E6, images and base64: no media are taken, which E1 shows.
* F6, models that are not causal: refused when they are loaded, tests/native/test_model.py.
* G3, whose prompts a request may find in the cache, and which are nobody else's: tests/e2e/test_prefix_cache.py. What
  can be told by time, `benchmarks/bench_prefix.py` measures.
* G4, tenants' shares of the prefix cache: there are none. Whoever asks for much pushes out what others had.
* G5, ids by which a client resumes: there are none, resuming is between gateway and worker.
"""
