"""`python -m loralab` is the `loralab` command."""

from loralab.cli.main import main

main()
