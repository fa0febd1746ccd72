"""Measurements: each module prints one JSON object as its last line. Started with `python -m benchmarks.<name>`."""
