"""Manifests, their signatures, and checking files against them."""
