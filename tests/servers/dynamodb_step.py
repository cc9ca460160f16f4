"""moto's server with DynamoDB's guarantees that moto lacks; run as ``python dynamodb_step.py -p PORT``.

moto answers requests on several threads at once without a lock, so that its transactions are not isolated; it
ignores `ClientRequestToken`; it copies the whole table for every operation of a transaction; and it looks for
the ten types of an attribute under several names each, which takes most of a query's time.
"""

from __future__ import annotations

import copy
import json
import sys
import threading
from collections import defaultdict
from typing import Any

from moto.core.serialize import BaseJSONSerializer
from moto.dynamodb.models.table import Table
from moto.dynamodb.responses import DynamoHandler
from moto.server import main

_lock = threading.Lock()
_done: dict[str, Any] = {}
_call_action = DynamoHandler.call_action
_JSON_TYPES = {"S", "N", "BOOL", "NULL", "SS", "NS"}  # whose values are JSON already
_serialize_any_structure = BaseJSONSerializer._serialize_type_structure


def _one_at_a_time(self: Any) -> Any:
    with _lock:
        token = None
        if self.headers.get("X-Amz-Target", "").endswith("TransactWriteItems"):
            token = json.loads(self.body).get("ClientRequestToken")
        if token in _done:
            return _done[token]
        answer = _call_action(self)
        if token is not None and answer[0] == 200:
            _done[token] = answer
        return answer


def _snapshot(self: Any, memo: Any) -> Any:
    snapshot = copy.copy(self)
    snapshot.items = defaultdict(dict, {key: dict(items) for key, items in self.items.items()})
    return snapshot


def _serialize_structure(self: Any, serialized: Any, value: Any, shape: Any, key: str) -> None:
    if shape.name == "AttributeValue" and isinstance(value, dict) and value.keys() <= _JSON_TYPES:
        self._default_serialize(serialized, value, shape, key)
    else:
        _serialize_any_structure(self, serialized, value, shape, key)


DynamoHandler.call_action = _one_at_a_time  # type: ignore[method-assign]
Table.__deepcopy__ = _snapshot  # type: ignore[attr-defined]
BaseJSONSerializer._serialize_type_structure = _serialize_structure  # type: ignore[method-assign]

if __name__ == "__main__":
    main(sys.argv[1:])
