"""Reports of experiments: data, statistics, findings, tables, figures, and a dashboard over a folder."""
