"""Files: run folders, experiment folders, the cache, atomic writes."""
