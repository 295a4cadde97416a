"""Exports, limited to what one viewer may see."""
