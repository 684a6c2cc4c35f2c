"""Loaders: what puts a guest into memory before it begins."""

from shardio.boot.flat import load_flat

__all__ = ["load_flat"]
