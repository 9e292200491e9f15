"""A report for the textfile collector of node_exporter, where one port per machine is all there is.

No ages: they would stand still where the file does not; node_exporter's ``node_textfile_mtime_seconds`` tells its age.
Nothing of the process either, for node_exporter tells its own under the same names.

https://github.com/prometheus/node_exporter#textfile-collector
"""

from pathlib import Path
from typing import Final

from spark_agent.agent.report import Report
from spark_agent.agent.state import write_for_others
from spark_agent.exporters.prometheus import text

FILE: Final = "spark-agent.prom"


def write(report: Report, folder: Path) -> Path:
    """Write a report into the folder that node_exporter reads, and return the file; raises `OSError`.

    The file is there whole, or as it was before: node_exporter may read it at any time.
    """
    path = folder / FILE
    # It reads *.prom only, so it passes by what is not done. What a crash takes is written again in seconds.
    write_for_others(path, text(report), is_durable=False)
    return path
