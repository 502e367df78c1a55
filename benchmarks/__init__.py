"""Benchmarks. RECORDS.md has the published results."""

import os

# Set before transformers is imported: no downloads while a clock runs, and no messages between the lines of a table.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
