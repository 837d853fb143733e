"""The store in a directory, and a local disk in front of a slower store."""
