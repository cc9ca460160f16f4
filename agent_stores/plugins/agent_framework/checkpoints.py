"""`AgentStoresCheckpointStorage`: the checkpoints of Agent Framework's workflows in any of our stores."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Collection
from datetime import datetime, timezone
from importlib import import_module
from typing import Any

from agent_framework import WorkflowCheckpoint, WorkflowCheckpointException
from typing_extensions import Unpack

from agent_stores.backend import Row
from agent_stores.errors import (
    ArgumentError,
    ArgumentTypeError,
    ConflictError,
    MessageFormatError,
    NotFoundError,
)
from agent_stores.messages import ChatMessage
from agent_stores.plugins.agent_framework.parts import FRAMEWORK
from agent_stores.plugins.closing import AsyncClosing
from agent_stores.plugins.documents import document, document_data
from agent_stores.plugins.store_resolver import PluginOptions, StoreLike, StoreResolver
from agent_stores.plugins.thread_ids import escape, unescape
from agent_stores.store import ChatMessageStore
from agent_stores.store_options import identifier

logger = logging.getLogger("agent_stores")

_encoding: Any = import_module("agent_framework._workflows._checkpoint_encoding")  # it has no public name

_KIND = f"{FRAMEWORK}.checkpoint"
_WORKFLOWS = f"#{FRAMEWORK}/workflow/"
_POINTERS = f"#{FRAMEWORK}/checkpoint/"
_WORKFLOW = f"{FRAMEWORK}.workflow"
_PAGE = 32  # checkpoints, which may be large


class AgentStoresCheckpointStorage(AsyncClosing):
    """A `CheckpointStorage` over a store: each checkpoint is a row of its workflow's thread.

    The thread is ``#agent_framework/workflow/{name}`` (with ``%``, ``/`` and ``#`` escaped in the name). The
    thread ``#agent_framework/checkpoint/{id}`` says which workflow a checkpoint is of. It is not made where
    checkpoints go by themselves, by ``ttl`` or ``max_messages``: then a checkpoint is looked for in the
    workflows, the one that ran last first.

    The framework writes what JSON cannot hold as a pickle. Reading makes the types only that the framework
    allows, and those of `allowed_checkpoint_types`; so whoever can write to the database is trusted, unless
    ``encryption`` is a `KeyRing` with ``allow_plaintext=False``, which rejects what others wrote.

    Args:
        source: a URL as `open_log` takes it, a `MessageLog` (which stays open), or a function that makes the
            store of a thread id.
        allowed_checkpoint_types: the application's types in checkpoints, each as ``"module:qualname"``. The
            framework's early versions (1.0.0, for one) allow all types; there it must be None.
        options: for a URL or a log, those of the store: ``tenant``; ``ttl`` and ``ttl_refresh`` of a
            workflow's checkpoints together; ``max_messages``, the newest checkpoints that each workflow
            keeps; ``encryption``.

    Raises:
        ArgumentError, ArgumentTypeError: for values that are not accepted. Nothing connects before the first
            operation.
        MissingDependencyError: when the URL's backend is not installed; names the extra.
    """

    def __init__(
        self,
        source: StoreLike,
        *,
        allowed_checkpoint_types: Collection[str] | None = None,
        **options: Unpack[PluginOptions],
    ) -> None:
        if isinstance(allowed_checkpoint_types, str):
            raise ArgumentTypeError("allowed_checkpoint_types must be a collection of str, got a str")
        self._opened: StoreResolver[ChatMessage] = StoreResolver(
            source,
            options=options,
            dangling_calls="keep",
            accepts=("source", "allowed_checkpoint_types"),
        )
        self._allowed: dict[str, Any] = {}
        if "allowed_types" in inspect.signature(_encoding.decode_checkpoint_value).parameters:
            self._allowed["allowed_types"] = frozenset(allowed_checkpoint_types or ())
        elif allowed_checkpoint_types is not None:
            raise ArgumentError("allowed_checkpoint_types must be None for this version of agent_framework")

    async def save(self, checkpoint: WorkflowCheckpoint) -> str:
        """Store a checkpoint, in place of the one with its id if there is one; returns the id.

        Raises:
            WorkflowCheckpointException: when it cannot be encoded, or could not be restored.
            MessageTooLargeError: when it is larger than the server can store.
            StoreUnavailableError, StoreRejectedError: when nothing was written.
            OutcomeUnknownError: when it may or may not be stored; repeating the call is safe.
        """
        name, workflow = checkpoint.checkpoint_id, identifier("workflow_name", checkpoint.workflow_name)
        try:
            data = _encoding.encode_checkpoint_value(checkpoint.to_dict())
            _encoding.decode_checkpoint_value(data, **self._allowed)
            row = document(_KIND, identifier("checkpoint_id", name), data, _time(checkpoint.timestamp))
        except WorkflowCheckpointException:
            raise
        except Exception as error:
            raise WorkflowCheckpointException(f"the checkpoint {name!r} cannot be stored: {error}") from error
        store = self._checkpoints(workflow)
        if await self._may_exist(store, name, workflow):
            try:
                await store.replace(name, row)
                return name
            except NotFoundError:
                pass
        await store.add_messages([row])
        return name

    async def load(self, checkpoint_id: str) -> WorkflowCheckpoint:
        """A checkpoint, by its id.

        Raises:
            WorkflowCheckpointException: when there is none, or it cannot be restored.
        """
        store = await self._find(checkpoint_id)
        row = None if store is None else await store.get(checkpoint_id)
        if row is None:
            raise WorkflowCheckpointException(f"there is no checkpoint of id {checkpoint_id!r}")
        return self._restore(row)

    async def list_checkpoints(self, *, workflow_name: str) -> list[WorkflowCheckpoint]:
        """The checkpoints of a workflow, in the order in which they were stored; reads pages.

        One that cannot be restored is left out, with a line in the log.
        """
        found = []
        async for item in self._checkpoints(workflow_name).iter_messages(page_size=_PAGE):
            try:
                found.append(self._restore(item.message))
            except WorkflowCheckpointException as error:
                logger.warning("the checkpoint %r is not shown: %s", item.message.message_id, error)
        return found

    async def delete(self, checkpoint_id: str) -> bool:
        """Delete a checkpoint; False when there is none of this id."""
        store = await self._find(checkpoint_id)
        if store is None:
            return False
        deleted = await store.delete(checkpoint_id)
        await self._pointer(checkpoint_id).delete_thread()
        return deleted > 0

    async def get_latest(self, *, workflow_name: str) -> WorkflowCheckpoint | None:
        """The checkpoint of a workflow with the latest time stamp, of equal ones the first; None for none."""
        store = self._checkpoints(workflow_name)
        latest = max(await self._index(store), key=lambda row: row.created_us or 0, default=None)
        message = None if latest is None else await store.get(latest.message_id)
        return None if message is None else self._restore(message)

    async def list_checkpoint_ids(self, *, workflow_name: str) -> list[str]:
        """The ids of a workflow's checkpoints, in the order in which they were stored; reads no bodies."""
        return [row.message_id for row in await self._index(self._checkpoints(workflow_name))]

    def _checkpoints(self, workflow: str) -> ChatMessageStore[ChatMessage]:
        return self._opened.store(_WORKFLOWS + escape(workflow))

    def _pointer(self, checkpoint_id: str) -> ChatMessageStore[ChatMessage]:
        return self._opened.store(_POINTERS + escape(checkpoint_id))

    async def _may_exist(self, store: ChatMessageStore[ChatMessage], name: str, workflow: str) -> bool:
        """Whether a checkpoint may be stored already; notes which workflow it is of."""
        if store._settings.ttl is not None or store._settings.max_messages is not None:
            return True
        pointer = self._pointer(name)
        try:
            await pointer.update_metadata({_WORKFLOW: workflow}, expected_revision=0)
            return False
        except ConflictError:
            former = (await pointer.metadata()).get(_WORKFLOW)
        if former != workflow:
            await pointer.update_metadata({_WORKFLOW: workflow})
            if isinstance(former, str):
                await self._checkpoints(former).delete(name)
        return True

    async def _find(self, checkpoint_id: str) -> ChatMessageStore[ChatMessage] | None:
        """The store that may have a checkpoint."""
        if not checkpoint_id:
            return None
        workflow = (await self._pointer(checkpoint_id).metadata()).get(_WORKFLOW)
        if isinstance(workflow, str):
            return self._checkpoints(workflow)
        async for stats in self._opened.threads(_WORKFLOWS, "recent"):
            store = self._checkpoints(unescape(stats.thread_id.removeprefix(_WORKFLOWS)))
            if await store.get(checkpoint_id) is not None:
                return store
        return None

    @staticmethod
    async def _index(store: ChatMessageStore[ChatMessage]) -> list[Row]:
        """The rows of a thread without their bodies, oldest first."""
        return await store.log.read(store._key, bodies=False)

    def _restore(self, row: ChatMessage) -> WorkflowCheckpoint:
        try:
            data = document_data(_KIND, row)
            return WorkflowCheckpoint.from_dict(_encoding.decode_checkpoint_value(data, **self._allowed))
        except MessageFormatError as error:
            raise WorkflowCheckpointException(str(error)) from error


def _time(timestamp: str) -> datetime:
    time = datetime.fromisoformat(timestamp)
    return time if time.tzinfo is not None else time.replace(tzinfo=timezone.utc)
