"""The engine: one loop, its loss, schedule and events."""
