"""The recognition core: imaging, detection, embedding, matching, and the model artefact they run on.

Importing this package imports nothing: each module brings only what it needs, so that a process that merely reads
the artefact's description starts without numpy, OpenCV or an engine.
"""
