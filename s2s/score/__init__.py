"""Scores: strings and links in, numbers with signatures out. Nothing here knows a model."""
