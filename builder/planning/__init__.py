"""A Dockerfile becomes stages, steps and their keys, before anything is done."""
