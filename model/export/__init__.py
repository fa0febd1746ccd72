"""Regenerates the committed graphs from facenet-pytorch, the reference (the `export` extra); nothing else needs it."""
