"""The subcommands of `facerec` that belong to no tier, one module each; a tier has its own in `command.py`."""
