"""The parts of the gallery index: vectors with proven errors, the search over them, and its snapshot on disk."""
