"""The native network, its adapters and its files."""
