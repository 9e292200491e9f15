"""``python -m spark_agent.agent``."""

from spark_agent.agent.cli import main

main()
