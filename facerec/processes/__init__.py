"""Child processes of this machine: start, watch, restart and end them."""
