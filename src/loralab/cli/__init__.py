"""The `loralab` command: commands by topic, terminal output, safe streams."""
