"""The disk tier of the prefix cache: KV of token ranges in files, one folder for each model and all that must match.

A `Shelf` is the engine's; `folders` is for who only looks and clears, without a model. Opaque to all of it: what a
payload means, and which tokens are worth keeping.
"""

from plait.disk.folders import Folder, clear, default_dir, folders, n_bytes
from plait.disk.keeper import State
from plait.disk.pins import Wish
from plait.disk.record import Record, address, folder_key, tenant
from plait.disk.results import Lost, Read, Result, Why, Written
from plait.disk.shelf import Shelf

__all__ = [
    "Folder",
    "Lost",
    "Read",
    "Record",
    "Result",
    "Shelf",
    "State",
    "Why",
    "Wish",
    "Written",
    "address",
    "clear",
    "default_dir",
    "folder_key",
    "folders",
    "n_bytes",
    "tenant",
]
