"""The Redis backend: threads on Redis and Valkey. docs/redis.md describes it."""
