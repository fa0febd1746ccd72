"""Where frames come from: a folder, a camera, or an MQTT topic."""
