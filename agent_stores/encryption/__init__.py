"""Encryption at rest: `KeyRing` and `DataKeys` hold the keys, `rekey` re-encrypts. Extra ``encryption``."""

from agent_stores.encryption.ciphers import Keys
from agent_stores.encryption.data_keys import DataKeys
from agent_stores.encryption.key_ring import KeyRing
from agent_stores.encryption.key_service import KeyService, LocalKeyService
from agent_stores.encryption.rekeying import RekeyProblem, RekeyReport, rekey

__all__ = [
    "DataKeys",
    "KeyRing",
    "KeyService",
    "Keys",
    "LocalKeyService",
    "RekeyProblem",
    "RekeyReport",
    "rekey",
]
