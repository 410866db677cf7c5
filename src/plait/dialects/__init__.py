"""One file per wire protocol. Each exports `routes(fleet)`; none speaks through another."""
