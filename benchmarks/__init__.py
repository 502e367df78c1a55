"""Runnable benchmarks; RECORDS.md keeps what they found."""

import os

# Before any of them imports transformers: nothing is fetched while a clock runs, and nothing is said between two lines of a table.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
