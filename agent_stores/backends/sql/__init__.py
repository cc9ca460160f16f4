"""The SQL backend: SQLite, PostgreSQL and MariaDB."""
