"""Exports on demand: requests, their state, and the workers that run them."""
