"""The supervised engine: `FaceEngine` as child processes that do nothing but images → faces.

The worker's process holds `supervisor.SupervisedEngine`; `child` runs in the children, one per core. See
docs/adr/0002-engine-child.md for why. Importing this package imports no engine.
"""
