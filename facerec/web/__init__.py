"""The web tier: takes uploads over HTTP, hands them to the workers and answers with their results.

Runs without numpy and without an engine: it looks only at a picture's header.
"""
