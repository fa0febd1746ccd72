"""The parts of the gallery index: vectors with bounded errors, the search over them, and snapshots on disk."""
