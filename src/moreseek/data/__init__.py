"""Documents, token shards, the resumable loader, and problems. No torch in here."""
