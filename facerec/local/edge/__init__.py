"""What a device and its cloud need on this machine."""
