"""Steps are done: commands, copies, and what the cache spares."""
