"""Trees of files and layers: what changed, as tar, and unpacked again."""
