"""Several replicas as one: who has what, and who does what for all."""
