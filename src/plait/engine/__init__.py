"""Token ids in, token ids out: scheduling, slots and prefixes. Has never heard of text, sockets or libllama."""
