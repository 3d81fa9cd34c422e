"""Watching what runs: exits, and what a former executor left."""
