"""The `loralab` command."""
