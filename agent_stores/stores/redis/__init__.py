"""The Redis backend; `agent_stores.redis` is its home."""
