"""Loaders: what puts a guest into memory before it begins."""

from shardio.boot.flat import Loaded, load_flat

__all__ = ["Loaded", "load_flat"]
