"""Exports as one viewer may see them."""
