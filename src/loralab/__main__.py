"""Run the `loralab` command with `python -m loralab`."""

from loralab.cli.main import main

main()
