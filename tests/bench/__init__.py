"""``make bench``: Crossdock beside Debian's buildah, on this machine, in one run."""
