"""What keeps a store in order: retention, garbage collection, scrubbing, reaping, and the commands for it."""
