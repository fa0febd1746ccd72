"""The recognition core: imaging, detection, embedding, matching, and the model artefact they run on.

Importing this package imports nothing, so that a process that only reads an artefact's description starts without
numpy, OpenCV or an engine.
"""
