"""A report for the textfile collector of node_exporter, where one port per machine is all there is.

No ages: they would stand still where the file does not; node_exporter's ``node_textfile_mtime_seconds`` tells its age.
Nothing of the process either, for node_exporter tells its own under the same names.

https://github.com/prometheus/node_exporter#textfile-collector
"""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Final

from spark_agent.agent.report import Report
from spark_agent.exporters.prometheus import text

FILE: Final = "spark-agent.prom"


def write(report: Report, folder: Path) -> Path:
    """Write a report into the folder that node_exporter reads, and return the file; raises `OSError`.

    The file is there whole, or as it was before: node_exporter may read it at any time.
    """
    page = text(report)
    # It reads *.prom only, so it passes by what is not done.
    handle, temporary = tempfile.mkstemp(prefix=f".{FILE}.", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(page)
            os.fchmod(file.fileno(), 0o644)
        return Path(temporary).replace(folder / FILE)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
