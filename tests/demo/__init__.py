"""``make demo``: the main job before your eyes."""
