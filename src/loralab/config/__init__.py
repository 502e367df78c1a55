"""Settings: the schema, recipes, and how they are loaded."""
