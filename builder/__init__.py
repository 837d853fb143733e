"""The daemonless Dockerfile builder."""
