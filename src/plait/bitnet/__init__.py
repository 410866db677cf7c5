"""BitNet b1.58: the files that bitnet.cpp makes of it, in a form that llama.cpp computes with, and its mathematics.

Pure file work and arithmetic with numpy; knows no libllama. `gguf` tells which files these are, `llama.squared_relu`
makes libllama's graph compute them, docs/bitnet.md says what is exact.
"""
