"""The commands: each a module with `run(settings)`, imported when it is asked for, for most import much."""
