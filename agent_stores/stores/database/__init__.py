"""The database backend: SQLite, PostgreSQL and MariaDB, through SQLAlchemy Core."""
