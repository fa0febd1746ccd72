"""The app tier as two Lambda functions: detection and recognition, each with its handler in the module of its name.

They run without Celery and kombu, on ONNX Runtime alone. The reasons are in docs/adr/0022-two-functions.md.
"""
