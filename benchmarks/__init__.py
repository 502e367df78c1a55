"""Runnable benchmarks; RECORDS.md keeps what they found."""
