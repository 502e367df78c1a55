"""The page of the server: its views, and what they need besides the API."""
