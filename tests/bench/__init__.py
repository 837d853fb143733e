"""``make bench``: Crossdock beside other tools, on this machine, in one run."""
