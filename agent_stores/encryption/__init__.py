"""Encryption at rest: `KeyRing` holds the keys, `rekey` re-encrypts what is stored. Extra ``encryption``."""

from agent_stores.encryption.key_ring import KeyRing
from agent_stores.encryption.rekeying import RekeyReport, rekey

__all__ = ["KeyRing", "RekeyReport", "rekey"]
