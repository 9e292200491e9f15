"""Where somebody takes a part for the whole: rules and dashboards read, typed by scope and unit, and judged."""
