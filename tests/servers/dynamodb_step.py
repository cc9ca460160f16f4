"""moto's server with DynamoDB's guarantees that moto lacks; run as ``python dynamodb_step.py -p PORT``.

moto answers requests on several threads at once without a lock, so that its transactions are not isolated; it
ignores `ClientRequestToken`; and it copies the whole table for every operation of a transaction.
"""

from __future__ import annotations

import copy
import json
import sys
import threading
from collections import defaultdict
from typing import Any

from moto.dynamodb.models.table import Table
from moto.dynamodb.responses import DynamoHandler
from moto.server import main

_lock = threading.Lock()
_done: dict[str, Any] = {}
_call_action = DynamoHandler.call_action


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


DynamoHandler.call_action = _one_at_a_time  # type: ignore[method-assign]
Table.__deepcopy__ = _snapshot  # type: ignore[attr-defined]

if __name__ == "__main__":
    main(sys.argv[1:])
