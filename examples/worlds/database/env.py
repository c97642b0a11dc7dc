"""Questions to a small SQLite database whose schema has to be explored."""

import sqlite3
from typing import Any


class Database:
    def reset(self, *, tables: dict[str, dict[str, Any]], **columns: object) -> None:
        """`tables` is name -> {"columns": names, "rows": their values}."""
        self._file = sqlite3.connect(":memory:")
        for name, table in tables.items():
            self._file.execute(f'create table "{name}" ({", ".join(table["columns"])})')
            places = ", ".join("?" for _ in table["columns"])
            self._file.executemany(f'insert into "{name}" values ({places})', table["rows"])
        self._file.commit()
        self._file.execute("pragma query_only = on")

    def list_tables(self) -> str:
        """Give the names of all tables."""
        found = self._file.execute("select name from sqlite_master where type = 'table'")
        return ", ".join(name for (name,) in found)

    def show_columns(self, table: str) -> str:
        """Give the names of a table's columns.

        Args:
            table: The table's name.
        """
        found = self._file.execute("select name from pragma_table_info(?)", (table,)).fetchall()
        if not found:
            raise ValueError(f"no table {table}")
        return ", ".join(name for (name,) in found)

    def query(self, sql: str) -> str:
        """Run a query that only reads.

        Args:
            sql: One SELECT statement.
        """
        if not sql.lstrip().lower().startswith("select"):
            raise ValueError("only SELECT is allowed")
        found = self._file.execute(sql).fetchmany(5)
        return "; ".join(", ".join(map(str, row)) for row in found) or "no rows"
