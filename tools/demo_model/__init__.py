"""Makes the small demo model that Plait carries: stories, tokenizer, training, GGUF.

Run `python -m tools.demo_model` from the repository root; see the README beside this file.
Nothing here is imported by the server.
"""
