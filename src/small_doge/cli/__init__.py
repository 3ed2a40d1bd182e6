"""The `small-doge` command: one file a command, no logic of its own."""
