"""The subcommands of `facerec`, one module each with an attribute `command`; `facerec.cli` loads them when called."""
