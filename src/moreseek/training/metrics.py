"""metrics.jsonl: one JSON object a step; cut back to the checkpoint on resume. TensorBoard when it is installed."""

import json
from pathlib import Path
from typing import Any


class MetricsFile:
    """Appends a line a step and flushes it, so that a killed run keeps what it measured."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = None

    def truncate_after(self, step: int) -> None:
        """Drop lines beyond ``step`` and a last line that was cut off: what is repeated is measured again."""
        if not self.path.is_file():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (json.JSONDecodeError, KeyError):
                break
        beside = self.path.with_name(f".{self.path.name}.writing")  # a kill in the middle must not lose what was kept
        beside.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        beside.replace(self.path)

    def write(self, values: dict[str, Any]) -> None:
        if self._file is None:
            self._file = self.path.open("a", encoding="utf-8")
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class TensorBoard:
    """Mirror of the metrics for TensorBoard; does nothing unless the ``trackers`` extra is installed and asked for."""

    def __init__(self, folder: Path, wanted: bool) -> None:
        self._writer = None
        if wanted:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                from moreseek.errors import InputError

                raise InputError("run.tensorboard needs: pip install 'moreseek[trackers]'.") from error
            self._writer = SummaryWriter(str(folder))

    def write(self, values: dict[str, Any]) -> None:
        if self._writer is not None:
            for key, value in values.items():
                if isinstance(value, int | float) and key != "step":
                    self._writer.add_scalar(key, value, values["step"])

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
