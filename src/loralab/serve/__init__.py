"""`loralab serve`: an HTTP API and a page for trained runs."""
