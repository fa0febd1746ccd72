"""The recognition core: imaging, detection, embedding, matching, and the model artefact they run on.

Importing this package imports nothing of it, so that a process that only reads an artefact's description starts without
numpy, OpenCV or an engine.
"""

import os

# ONNX Runtime's wheel would report its use to Microsoft (1.31 on Linux); it looks at this when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
