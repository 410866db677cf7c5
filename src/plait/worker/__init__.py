"""One process per model replica: joins libllama, the engine and the text rules, and talks `protocol` on a socket."""
