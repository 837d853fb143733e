"""Blobs on their way in and out: fills, spools and pushes."""
