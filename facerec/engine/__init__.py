"""The supervised engine: child processes, one per core, that turn images into faces.

The worker's process holds `supervisor.SupervisedEngine`; `child` runs in the children. The reasons are in
docs/adr/0002-engine-child.md. Importing this package imports no engine.
"""
