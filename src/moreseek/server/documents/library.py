"""A folder of documents that follows its files: looked at again now and then, indexed anew when they have changed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from moreseek.errors import InputError
from moreseek.server.documents.index import Index
from moreseek.server.documents.passages import Passage, find_files

LOG = logging.getLogger("moreseek.server")
LOOK_S = 10.0  # the folder is looked at so often, and only when something is searched

Signature = tuple[tuple[str, int, int], ...]


class Documents:
    """What a model may look into. All methods may block, so they are for worker threads."""

    def __init__(self, folder: Path) -> None:
        """Index the folder. Raises InputError where there is nothing to answer from."""
        self.folder = folder
        self._signature = _signature(folder)
        self.index = Index.of(folder)
        if not self.index.count:
            raise InputError(f"{folder}: its documents hold no text, so there is nothing to answer from.")
        self._looked = time.monotonic()
        self._looking = threading.Lock()

    def search(self, text: str, k: int, files: Sequence[str] = ()) -> list[Passage]:
        """See Index.search. Changed documents are found as soon as they are indexed; nobody waits for that."""
        if time.monotonic() - self._looked > LOOK_S and self._looking.acquire(blocking=False):
            threading.Thread(target=self._look, name="moreseek-documents", daemon=True).start()
        return self.index.search(text, k, files)

    def _look(self) -> None:
        try:
            found = _signature(self.folder)
            if found != self._signature:
                LOG.info("%s has changed and is indexed anew", self.folder)
                self._signature = found  # of a fault it is told once, not every ten seconds
                index = Index.of(self.folder)
                if index.count:  # who searches in the old one still has it
                    self.index = index
                    LOG.info("%s: %d passages of %d files", self.folder, index.count, index.files)
        except (InputError, OSError) as error:
            LOG.error("the documents stay as they were indexed: %s", error)
        finally:
            self._looked = time.monotonic()
            self._looking.release()


def _signature(folder: Path) -> Signature:
    """What changes when a document does: names, sizes, times."""
    facts = ((file, file.stat()) for file in find_files(folder))
    return tuple((str(file), stat.st_size, stat.st_mtime_ns) for file, stat in facts)
