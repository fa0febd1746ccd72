"""The component on an edge device: frames in, faces out over MQTT. Frames never leave the device."""
