"""How a command of a build runs apart from the builder."""
