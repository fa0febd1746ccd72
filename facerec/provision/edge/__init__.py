"""What the edge needs in the cloud: IoT rules, things, and the Greengrass component of the devices."""
