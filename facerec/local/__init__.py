"""The whole system on this machine: an emulated AWS, and the ordinary commands pointed at it."""
