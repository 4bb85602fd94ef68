"""Toolkits that train and decode the same shapes as s2s, each driven by its own commands in its own environment."""
