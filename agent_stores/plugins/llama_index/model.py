"""What the chat stores have in common: how they are made, closed, and carried to another process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index.core.bridge.pydantic import BaseModel, PrivateAttr
from pydantic import SerializationInfo, SerializerFunctionWrapHandler, model_serializer
from typing_extensions import Self, TypedDict

from agent_stores.backend import TtlRefresh
from agent_stores.errors import StateError
from agent_stores.plugins.llama_index.threads import Threads
from agent_stores.plugins.store_resolver import Ttl
from agent_stores.store_options import OnCorrupt
from agent_stores.tokens import TokenCounter

if TYPE_CHECKING:
    from agent_stores.attachments import Attachments
    from agent_stores.encryption import Keys


class ChatStoreOptions(TypedDict, total=False):
    """The options of stores that show messages as they are stored; see `ChatMessageStore`."""

    tenant: str | None
    max_messages: int | None
    ttl: Ttl
    ttl_refresh: TtlRefresh
    on_corrupt: OnCorrupt
    count_tokens: TokenCounter | None
    encryption: Keys | None
    attachments: Attachments | None


class StoredThreads(BaseModel):
    """Conversations by key, each a thread of a store.

    As JSON, and pickled, it is the conversations of a store in memory; of any other store, the URL and the
    options. Logins, keys, attachments and `count_tokens` are not carried. With a login, `encryption` or
    `attachments`, the JSON has the location only, and is restored with ``from_dict(state, store=url)``, whose
    store must be there.

    Args:
        store: where they are kept: a URL as `open_log` takes it, a `MessageLog`, or a function that makes the
            store of a thread id; by default in this process's memory.
        options: those of the store, for a URL or a log: ``tenant``, ``max_messages``, ``ttl``,
            ``ttl_refresh``, ``on_corrupt`` and ``count_tokens``; for a URL, also ``encryption`` and
            ``attachments``.

    Raises:
        ArgumentError, ArgumentTypeError: for values that are not accepted. Nothing connects before the first
            operation.
        StateError: for the JSON of a store that needs a login.
    """

    _threads: Threads = PrivateAttr()

    def __init__(self, store: Any, options: dict[str, Any]) -> None:
        name = options.pop("class_name", self.class_name())
        if name != self.class_name():
            raise StateError(f"the state's class_name must be {self.class_name()!r}, got {name!r}")
        super().__init__()
        # A memory gives its own threads, which have options for what a model is shown.
        self._threads = store if isinstance(store, Threads) else Threads(store, options, is_view=False)

    @classmethod
    def class_name(cls) -> str:
        """The name in LlamaIndex's JSON."""
        raise NotImplementedError

    @property
    def threads(self) -> Threads:
        """The operations below."""
        return self._threads

    async def aclose(self) -> None:
        """Close what the chat store opened; what it was given stays open."""
        await self._threads.opened.aclose()

    def close(self) -> None:
        """See `aclose`; blocks."""
        self._threads.opened.wait(self.aclose())

    @model_serializer(mode="wrap")
    def custom_model_dump(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        """Where the conversations are, or the conversations of a store in memory."""
        return {**handler(self), "class_name": self.class_name(), **self._threads.state()}

    def __reduce__(self) -> Any:
        cls = next(cls for cls in type(self).__mro__ if "class_name" in vars(cls))
        return restore, (cls, self.model_dump())

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """The same chat store: its conversations are where they are."""
        return self


def restore(cls: Any, state: dict[str, Any]) -> Any:
    """An object of a class for its JSON; named by pickles."""
    return cls(**state)
