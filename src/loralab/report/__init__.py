"""Reports made from a folder's files alone: pages, figures, tables, the model card. They load no model and need no torch."""
