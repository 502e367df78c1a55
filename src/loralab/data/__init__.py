"""From a source to token batches: sources → clean → select → encode → batches."""
