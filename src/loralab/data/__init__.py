"""From a data source to padded micro-batches: sources, splits, clean, tokenize, batches."""
