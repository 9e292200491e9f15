"""What an expression measures: it is typed, and what is done to a power on the way is noted.

A selector has the extent of its metric, aggregation keeps it, operators combine it. What is done to a power that a
rule may object to (added to its own part, held against a constant, filled with 0, …) is noted as an act.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from promql_parser import (
    AggModifierType,
    AggregateExpr,
    BinaryExpr,
    Call,
    LabelModifierType,
    MatchOp,
    MatrixSelector,
    NumberLiteral,
    ParenExpr,
    StringLiteral,
    SubqueryExpr,
    UnaryExpr,
    VectorSelector,
)

from spark_agent.agent.audit.catalogue import (
    PARTS,
    SENSOR_LABELS,
    Catalogue,
    Dimension,
    Extent,
    Kind,
    Metric,
    Role,
    is_inside,
    rows,
    words_of,
)
from spark_agent.agent.audit.claim import Claim
from spark_agent.agent.audit.expression import VARIABLE, ExpressionError, read
from spark_agent.agent.audit.value import Act, Deed, Judged, Source, Span, Value
from spark_agent.agent.audit.words import Theme, themes

#: Labels that tell machines apart.
HOST_LABELS: Final = frozenset(
    ("instance", "host", "hostname", "Hostname", "node", "nodename", "node_name", "node_ip", "server", "machine",
     "kubernetes_node", "exported_instance", "exported_node", "hostip", "chassis", "box")
)  # fmt: skip
GPU_LABELS: Final = frozenset(
    ("gpu", "gpu_id", "gpu_uuid", "uuid", "UUID", "device", "minor_number", "index", "gpu_index", "card")
)
_MODEL_LABELS: Final = frozenset(
    ("gpu_name", "modelName", "model_name", "gpu_model", "model", "name", "product", "product_name", "card_model")
)
#: Labels by which one sensor of many is chosen, without saying what it measures.
_ONE_SENSOR: Final = frozenset(("chip", "sensor", "chip_name"))
_COST_WORDS: Final = frozenset(("cost", "costs", "price", "tariff", "usd", "eur", "dollars", "euros", "co2", "carbon"))
_WORK_WORDS: Final = frozenset(
    ("tokens", "token", "requests", "request", "images", "flops", "tflops", "samples", "steps", "generated", "queries",
     "hashrate", "inferences", "throughput")
)  # fmt: skip
#: Functions that change neither what a value is nor how much of it.
_KEEPING: Final = frozenset(
    ("abs", "ceil", "floor", "round", "clamp", "clamp_max", "clamp_min", "sort", "sort_desc", "sort_by_label",
     "sort_by_label_desc", "label_replace", "label_join", "scalar", "vector", "last_over_time", "min_over_time",
     "max_over_time", "avg_over_time", "quantile_over_time", "predict_linear", "holt_winters",
     "double_exponential_smoothing", "mad_over_time", "first_over_time", "info", "limitk")
)  # fmt: skip
_RATES: Final = frozenset(("rate", "irate", "deriv"))
_INCREASES: Final = frozenset(("increase", "delta", "idelta"))
#: Only these are wrong on a gauge.
_OF_COUNTERS: Final = frozenset(("rate", "irate", "increase"))
_COMPARISONS: Final = frozenset(("==", "!=", ">", "<", ">=", "<="))
#: Hours in days, weeks, months and years, by which a mean becomes an energy.
_HOURS: Final = frozenset((24.0, 168.0, 720.0, 730.0, 744.0, 8760.0))
#: Factors that turn one unit into another, and so are no limits.
_CONVERSIONS: Final = frozenset((1e3, 1e6, 1e9, 60.0, 3600.0, 3.6e6, 3.6e9, 86_400.0))

_PERCENT: Final = 100.0

_NUMBER: Final = Value(Dimension.RATIO, factor=None)


class Scopes:
    """Types expressions by a catalogue and the recording rules of everything that is audited together."""

    def __init__(self, catalogue: Catalogue, records: Iterable[Claim] = ()) -> None:
        self.catalogue = catalogue
        self._records: dict[str, list[Claim]] = {}
        for record in records:
            self._records.setdefault(record.title, []).append(record)
        self._judged: dict[tuple[str, tuple[tuple[str, str], ...]], Judged] = {}
        self._resolving: set[int] = set()

    def judge(self, text: str, variables: Mapping[str, str] | None = None) -> Judged:
        """Return what an expression measures; raise `ExpressionError` where it cannot be read."""
        key = text, tuple(sorted((variables or {}).items()))
        if key not in self._judged:  # dashboards are copied, and their expressions with them
            self._judged[key] = self._judge(text, variables)
        return self._judged[key]

    def _judge(self, text: str, variables: Mapping[str, str] | None) -> Judged:
        expression = read(text, variables)
        walk = _Walk(self)
        try:
            value = walk.visit(expression.tree)
        except RecursionError:
            raise ExpressionError("nested too deeply") from None
        return Judged(
            value,
            tuple(walk.acts),
            frozenset(walk.metrics),
            expression.variables,
            expression.comments,
            frozenset(walk.unknown),
        )

    def recorded(self, name: str, matchers: Sequence[tuple[MatchOp, str, str]]) -> Value | None:
        """Return what a recorded metric is, of the rules whose labels fit the matchers; None where none records it."""
        rules = [rule for rule in self._records.get(name, ()) if _fits(rule.labels, matchers)]
        if not rules:
            return None
        values = [self._value_of(rule) for rule in rules]
        if len({value.dimension for value in values}) > 1:
            return Value()
        return _united(values)

    def _value_of(self, rule: Claim) -> Value:
        key = id(rule)
        if key in self._resolving:
            return Value()  # records itself
        self._resolving.add(key)
        try:
            return self.judge(rule.queries[0].expr).value
        except ExpressionError:
            return Value()
        finally:
            self._resolving.discard(key)


def _fits(labels: Mapping[str, str], matchers: Sequence[tuple[MatchOp, str, str]]) -> bool:
    return all(
        (labels[name] == value) is (op == MatchOp.Equal)
        for op, name, value in matchers
        if name in labels and op in (MatchOp.Equal, MatchOp.NotEqual)
    )


def _united(values: Sequence[Value]) -> Value:
    first = values[0]
    if len(values) == 1:
        return first
    factors = {value.factor for value in values}
    return replace(
        first,
        sources=frozenset(source for value in values for source in value.sources),
        factor=first.factor if len(factors) == 1 else None,
        is_open=any(value.is_open for value in values),
        is_spark=any(value.is_spark for value in values),
    )


class _Walk:
    """One expression's walk: what it met on the way."""

    def __init__(self, scopes: Scopes) -> None:
        self._scopes = scopes
        self.acts: list[Act] = []
        self.metrics: set[str] = set()
        self.unknown: set[str] = set()

    def visit(self, node: Any) -> Value:
        if isinstance(node, ParenExpr | SubqueryExpr):
            return self.visit(node.expr)
        if isinstance(node, NumberLiteral):
            return replace(_NUMBER, number=node.val)
        if isinstance(node, UnaryExpr):
            value = self.visit(node.expr)
            return replace(value, number=None if value.number is None else -value.number)
        if isinstance(node, VectorSelector):
            return self._selector(node)
        if isinstance(node, MatrixSelector):
            return self.visit(node.vector_selector)
        if isinstance(node, AggregateExpr):
            return self._aggregate(node)
        if isinstance(node, Call):
            return self._call(node)
        if isinstance(node, BinaryExpr):
            return self._binary(node)
        return Value(Dimension.OTHER)

    # Selectors

    def _selector(self, node: VectorSelector) -> Value:
        groups = node.matchers.or_matchers or [node.matchers.matchers]
        matchers = [(m.op, m.name, m.value) for group in groups for m in group]
        names = [node.name] if node.name else _names(matchers)
        values = [self._metric(name, matchers) for name in names]
        if not values:
            return Value()
        value = _united(values) if len({one.dimension for one in values}) == 1 else Value()
        one_host = any(op == MatchOp.Equal and name in HOST_LABELS for op, name, _ in matchers)
        picks = any(op == MatchOp.Re and name in GPU_LABELS for op, name, _ in matchers)
        spark = any(Theme.SPARK in themes(text) for text in (*names, *(text for _, _, text in matchers)))
        if not (one_host or picks or spark):
            return value
        return replace(
            value,
            is_one_host=value.is_one_host or one_host,
            picks_gpus=value.picks_gpus or picks,
            is_spark=value.is_spark or spark,
        )

    def _metric(self, name: str, matchers: Sequence[tuple[MatchOp, str, str]]) -> Value:
        self.metrics.add(name)
        if name.startswith(VARIABLE):
            return Value(Dimension.UNKNOWN, factor=None)
        recorded = self._scopes.recorded(name, matchers)
        if recorded is not None:
            return recorded
        metric = self._scopes.catalogue.find(name)
        if metric is None:
            said = set(words_of(name))
            if said & _COST_WORDS:
                return Value(Dimension.PRICE, factor=None)
            if said & _WORK_WORDS:
                return Value(Dimension.WORK, factor=None)
            return Value()
        if metric.extent is Extent.UNKNOWN and metric.is_guess and metric.role is Role.READING:
            self.unknown.add(name)
        if any(op == MatchOp.Equal and label == metric.copies for op, label, _ in matchers):
            metric = replace(metric, copies="")
        return Value(
            metric.unit.dimension,
            frozenset(Source(extent, metric) for extent in _extents(metric, matchers)),
            metric.unit.factor,
            is_counter=metric.kind is Kind.COUNTER,
        )

    # Functions

    def _call(self, node: Call) -> Value:
        name = node.func.name
        arguments = [self.visit(argument) for argument in node.args]
        value = next((argument for argument in arguments if argument.sources or argument.number is None), None)
        if value is None:
            value = arguments[0] if arguments else Value(Dimension.OTHER)
        if name in _OF_COUNTERS and value.dimension is Dimension.POWER and not value.is_counter:
            self.acts.append(Act(Deed.RATED, value, op=name))
            return replace(value, factor=None)
        if name in _RATES:
            power = Dimension.POWER if value.dimension is Dimension.ENERGY else value.dimension
            return replace(value, dimension=power, is_counter=False)
        if name in _INCREASES:
            return replace(value, is_counter=False)
        if name == "sum_over_time":
            energy = Dimension.ENERGY if value.dimension is Dimension.POWER else value.dimension
            return replace(value, dimension=energy, factor=None)
        if name == "label_replace" and (mark := _mark(node.args)):
            return replace(value, marks=value.marks | {mark})
        if name in _KEEPING:
            if name == "avg_over_time" and value.dimension is Dimension.POWER:
                return replace(value, window=_seconds(node.args[0]))
            return value
        return Value(Dimension.OTHER)

    def _aggregate(self, node: AggregateExpr) -> Value:
        op = str(node.op)
        value = self.visit(node.expr)
        if op in ("count", "count_values", "group", "stddev", "stdvar"):
            return Value(Dimension.OTHER)
        labels = tuple(node.modifier.labels) if node.modifier else ()
        is_by = node.modifier is None or node.modifier.type == AggModifierType.By
        if is_by and set(labels) & _MODEL_LABELS:
            value = replace(value, has_models=True)
        if op != "sum":
            return replace(value, by=labels if is_by else value.by)
        if value.is_power and not value.is_limit:
            kept = self._kept_apart(value, labels, is_by=is_by)
            if not kept and (nested := _nested_within(value)):
                self.acts.append(Act(Deed.NESTED, replace(value, sources=nested)))
            twice = frozenset(
                source
                for source in value.sources
                if source.metric.copies and (source.metric.copies in labels) is not is_by
            )
            if twice:
                self.acts.append(Act(Deed.NESTED, replace(value, sources=twice)))
        return replace(value, span=_span(value, labels, is_by=is_by), by=labels if is_by else ())

    def _kept_apart(self, value: Value, labels: tuple[str, ...], *, is_by: bool) -> bool:
        """Return whether a sum keeps the series of a metric apart whose label tells extents."""
        tells = {source.metric.label for source in value.sources if source.metric.label}
        # A sensor's number stands for its label, where the labels are joined on later.
        tells |= {"sensor"} if "label" in tells else set()
        return bool(tells) and (bool(tells & set(labels)) if is_by else not tells & set(labels))

    # Operators

    def _binary(self, node: BinaryExpr) -> Value:
        op = str(node.op)
        left, right = self.visit(node.lhs), self.visit(node.rhs)
        if op == "or":
            return self._or(left, right)
        if op in ("and", "unless"):
            return left
        if op in _COMPARISONS:
            return self._compare(op, left, right, is_bool=bool(node.modifier and node.modifier.return_bool))
        if left.number is not None and right.number is not None:
            return replace(_NUMBER, number=_folded(op, left.number, right.number))
        left, right = _joined(node, left, right), _joined(node, right, left)
        if op == "*":
            return self._times(node, left, right)
        if op == "/":
            return self._over(left, right)
        if op == "+":
            return self._plus(left, right)
        if op == "-":
            return self._minus(left, right)
        return Value(Dimension.OTHER)

    def _or(self, left: Value, right: Value) -> Value:
        if left.is_power and right.number == 0:
            self.acts.append(Act(Deed.ZERO_FILLED, left, right))
            return left
        if left.is_power and right.is_power:
            if _is_switch(left, right):
                self.acts.append(Act(Deed.SWITCHED, left, right))
            return replace(
                left,
                sources=left.sources | right.sources,
                is_open=left.is_open or right.is_open,
                marks=left.marks | right.marks,
            )
        return left if left.number is None else right

    def _compare(self, op: str, left: Value, right: Value, *, is_bool: bool) -> Value:
        if left.is_power or right.is_power or _is_share(left) or _is_share(right):
            if left.number is not None and right.number is None:
                flipped = {">": "<", "<": ">", ">=": "<=", "<=": ">="}.get(op, op)
                self.acts.append(Act(Deed.COMPARED, right, left, flipped))
            else:
                self.acts.append(Act(Deed.COMPARED, left, right, op))
        if is_bool:
            return Value(Dimension.OTHER)
        return left if left.number is None else right

    def _times(self, node: BinaryExpr, left: Value, right: Value) -> Value:
        sides = (left, right, node.rhs), (right, left, node.lhs)
        for value, other, side in sides:
            if other.number is not None:
                return self._scaled(value, other.number)
            if selected := _selected_sensors(side):
                return _with_label(value, selected)
        for value, other, side in sides:
            if value.is_power and other.dimension is Dimension.PRICE:
                self.acts.append(Act(Deed.PRICED, value, other, "*"))
                return replace(value, dimension=Dimension.PRICE, factor=None)
            if value.is_power and not other.is_power:
                is_mask = other.dimension is Dimension.OTHER or _is_info(side)
                return value if is_mask else replace(value, factor=None)
        if left.dimension is right.dimension and not left.is_power:
            return Value(left.dimension, left.sources | right.sources, None)
        return Value(Dimension.OTHER, left.sources | right.sources, None)

    def _scaled(self, value: Value, by: float) -> Value:
        if by == 0:
            return replace(_NUMBER, number=0.0)
        if value.window and (by in _HOURS or any(_same(by, value.window / unit) for unit in (1, 60, 3600, 86_400))):
            self.acts.append(Act(Deed.MEAN_TIMES, value, replace(_NUMBER, number=by), "*"))
            return replace(value, dimension=Dimension.ENERGY, factor=None, window=None)
        factor = None if value.factor is None else value.factor * by
        return replace(value, factor=factor, scaled=(*value.scaled, by))

    def _over(self, left: Value, right: Value) -> Value:
        if right.number is not None:
            if left.is_power and right.number and right.number not in _CONVERSIONS and right.number >= 1:
                self.acts.append(Act(Deed.SHARE, _without_percent(left), right, "/"))
            return self._scaled(left, 1 / right.number) if right.number else left
        if left.is_power and right.is_power:
            deed = Deed.SHARE if right.is_limit and not left.is_limit else Deed.QUOTIENT
            self.acts.append(Act(deed, left, right, "/"))
            if left.dimension is right.dimension:
                return Value(Dimension.RATIO, left.sources | right.sources, None, by=left.by)
            return Value(Dimension.OTHER, left.sources | right.sources, None)
        if right.is_power and (left.dimension is Dimension.WORK or left.number is None):
            self.acts.append(Act(Deed.EFFICIENCY, right, left, "/"))
            work = left.dimension is Dimension.WORK
            return Value(Dimension.EFFICIENCY if work else Dimension.OTHER, right.sources, None)
        if left.is_power and right.dimension is Dimension.WORK:
            self.acts.append(Act(Deed.EFFICIENCY, left, right, "/"))
            return Value(Dimension.EFFICIENCY, left.sources, left.factor)
        if left.is_power:
            return replace(left, factor=None)
        return Value(Dimension.PRICE if left.dimension is Dimension.PRICE else Dimension.OTHER, factor=None)

    def _plus(self, left: Value, right: Value) -> Value:
        for value, other in ((left, right), (right, left)):
            if value.is_power and other.number is not None:
                self.acts.append(Act(Deed.CONSTANT_ADDED, value, other, "+"))
                return value
        if left.is_power and right.is_power:
            if nested := _nested_between(left, right):
                self.acts.append(Act(Deed.NESTED, replace(left, sources=nested), op="+"))
            return replace(
                left,
                sources=left.sources | right.sources,
                factor=left.factor if left.factor == right.factor else None,
                is_open=left.is_open or right.is_open,
                span=max(left.span, right.span, key=list(Span).index),
            )
        if left.is_power or right.is_power:
            return replace(left if left.is_power else right, is_open=True)
        return Value(left.dimension if left.dimension is right.dimension else Dimension.UNKNOWN)

    def _minus(self, left: Value, right: Value) -> Value:
        if right.is_power and (left.number is not None or left.is_limit) and not right.is_limit:
            self.acts.append(Act(Deed.HEADROOM, right, left, "-"))
            return Value(right.dimension, frozenset(), right.factor, is_open=True, span=right.span)
        if left.dimension is Dimension.PRICE and right.is_power:
            self.acts.append(Act(Deed.PRICED, right, left, "-"))
        if left.is_power and right.number is not None:
            return replace(left, is_open=True)
        # What is left of a whole without a part is neither.
        dimension = left.dimension if left.is_power else right.dimension
        return Value(dimension, frozenset(), left.factor, is_open=True)


def _mark(arguments: Sequence[Any]) -> tuple[str, str] | None:
    """Return the label and the text that ``label_replace`` gives to all series; None where it takes one's own."""
    texts = [argument.val for argument in arguments[1:] if isinstance(argument, StringLiteral)]
    return (texts[0], texts[1]) if len(texts) > 1 and texts[1] and "$" not in texts[1] else None


def _is_switch(left: Value, right: Value) -> bool:
    """Return whether two values that stand in for each other cover, or are, different things."""
    if left.marks and right.marks and not left.marks & right.marks:
        return False  # a label tells them apart
    said = [any(source.metric.says_whole for source in value.sources) for value in (left, right)]
    parts = [bool(value.extents) and value.extents <= PARTS for value in (left, right)]
    if (said[0] and parts[1]) or (said[1] and parts[0]):
        return True
    if not left.extents or not right.extents or (left.extents | right.extents) & {Extent.UNKNOWN, Extent.MIXED}:
        return False
    guessed = [{source.metric.is_estimate for source in value.sources} for value in (left, right)]
    return left.extents != right.extents or guessed[0] != guessed[1]


#: A pattern that is no danger to a matcher that goes back: nothing repeated that repeats.
_PLAIN_PATTERN: Final = re.compile(r"(?:[\w:|]|\.[*+]?|\((?!\?)|\)(?![*+?{]))+")
_MAX_REPEATS: Final = 4


def _names(matchers: Sequence[tuple[MatchOp, str, str]]) -> list[str]:
    """Return the metrics that a matcher of ``__name__`` selects, as far as they are known."""
    for op, name, value in matchers:
        if name != "__name__":
            continue
        if op == MatchOp.Equal:
            return [value]
        if op == MatchOp.Re:
            if re.fullmatch(r"\(?[\w:|]+\)?", value):
                return [one for one in value.strip("()").split("|") if one]
            if not _PLAIN_PATTERN.fullmatch(value) or len(re.findall(r"[*+]", value)) > _MAX_REPEATS:
                return []
            try:
                pattern = re.compile(value)
            except re.error:
                return []
            return [metric for metric in rows() if pattern.fullmatch(metric)]
    return []


def _extents(metric: Metric, matchers: Sequence[tuple[MatchOp, str, str]]) -> list[Extent]:
    """Return what of a metric's extents its label selects."""
    if not metric.label:
        return [metric.extent]
    for op, name, value in matchers:
        if name == metric.label and op in (MatchOp.Equal, MatchOp.Re):
            return _labelled(metric, value)
    if metric.extent is Extent.MIXED and any(name in _ONE_SENSOR for _, name, _ in matchers):
        return [Extent.UNKNOWN]
    return [metric.extent]


def _labelled(metric: Metric, value: str) -> list[Extent]:
    if "$" in value or "[[" in value:
        return [Extent.UNKNOWN]
    return [metric.extents.get(one, Extent.UNKNOWN) for one in value.strip("()").split("|")]


def _inside(node: Any) -> Any:
    """Return what parentheses and aggregations are around."""
    while isinstance(node, ParenExpr | AggregateExpr):
        node = node.expr
    return node


def _selected_sensors(node: Any) -> str:
    """Return the label that ``node_hwmon_sensor_label{label="…"}`` selects; "" where a node is no such thing."""
    node = _inside(node)
    if isinstance(node, VectorSelector) and node.name in SENSOR_LABELS:
        for matcher in node.matchers.matchers:
            if matcher.name == "label" and matcher.op in (MatchOp.Equal, MatchOp.Re):
                return str(matcher.value)
    return ""


def _is_info(node: Any) -> bool:
    """Return whether a node is a metric that is 1, and only brings labels."""
    node = _inside(node)
    return isinstance(node, VectorSelector) and (node.name or "").endswith(("_info", "_labels", "_label"))


def _with_label(value: Value, label: str) -> Value:
    """Return a value of several extents with the one that a label selects."""
    chosen = frozenset(
        Source(extent, source.metric)
        for source in value.sources
        for extent in (_labelled(source.metric, label) if source.extent is Extent.MIXED else [source.extent])
    )
    return replace(value, sources=chosen)


def _joined(node: BinaryExpr, value: Value, other: Value) -> Value:
    """Return a value that is matched with another by sensor: then it is about the same sensor."""
    matching = node.modifier.matching if node.modifier else None
    by_sensor = matching is None or (matching.type == LabelModifierType.Include) == (
        bool({"sensor", "label", "zone"} & set(matching.labels))
    )
    if not by_sensor or not any(source.extent is Extent.MIXED for source in value.sources):
        return value
    extents = {source.extent for source in other.sources if source.metric.label}
    if not extents or Extent.MIXED in extents:
        return value
    return replace(
        value,
        sources=frozenset(
            Source(extent, source.metric)
            for source in value.sources
            for extent in (extents if source.extent is Extent.MIXED else {source.extent})
        ),
    )


def _nested_within(value: Value) -> frozenset[Source]:
    """Return the sources of a sum that are inside one another."""
    readings = [source for source in value.sources if not source.is_limit]
    mixed = [source for source in readings if source.extent is Extent.MIXED]
    inside = [
        source
        for source in readings
        for other in readings
        if is_inside(source.extent, other.extent) or is_inside(other.extent, source.extent)
    ]
    return frozenset((*mixed, *inside))


def _nested_between(left: Value, right: Value) -> frozenset[Source]:
    """Return the sources of two values that are inside one another."""
    return frozenset(
        source
        for one in left.sources
        for two in right.sources
        if not one.is_limit and not two.is_limit
        and (is_inside(one.extent, two.extent) or is_inside(two.extent, one.extent))
        for source in (one, two)
    )  # fmt: skip


def _span(value: Value, labels: tuple[str, ...], *, is_by: bool) -> Span:
    if value.picks_gpus:
        return Span.GPUS
    if value.span is not Span.ONE:
        return value.span
    hosts = bool(set(labels) & HOST_LABELS)
    return Span.ONE if value.is_one_host or hosts is is_by else Span.MANY


def _without_percent(value: Value) -> Value:
    """Return a value before it was multiplied with 100, for a share in percent."""
    if value.factor is None or _PERCENT not in value.scaled:
        return value
    return replace(value, factor=value.factor / _PERCENT)


def _is_share(value: Value) -> bool:
    return value.dimension is Dimension.RATIO and bool(value.sources)


def _seconds(node: Any) -> float | None:
    span = getattr(node, "range", None)
    return span.total_seconds() if span is not None else None


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-6)


def _folded(op: str, left: float, right: float) -> float | None:
    try:
        match op:
            case "+":
                return left + right
            case "-":
                return left - right
            case "*":
                return left * right
            case "/":
                return left / right
            case "^":
                return float(left**right)
            case "%":
                return math.fmod(left, right)
    except (ArithmeticError, ValueError, TypeError):
        return None
    return None
