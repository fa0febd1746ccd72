"""The Lambda service of a local system: function instances, the function URL, and the polling of queues.

Each instance is AWS's own Runtime Interface Emulator (RIE) with AWS's runtime client for Python, as in an image.
"""
