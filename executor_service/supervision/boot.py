"""Whether the machine was restarted since an executor of this node last looked, kept with the journal's identity."""

from __future__ import annotations

from common.sqlite import Database

_KEY = "boot_id"


async def last_boot(database: Database) -> str:
    """The boot id (random(4)) that was remembered; empty when none was."""
    row = await database.read(
        lambda connection: connection.execute("SELECT value FROM meta WHERE key = ?", (_KEY,)).fetchone()
    )
    return str(row[0]) if row else ""


async def remember_boot(database: Database, boot_id: str) -> None:
    await database.write(
        lambda connection: connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_KEY, boot_id))
    )
