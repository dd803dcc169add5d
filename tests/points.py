"""Metrics as tests read them: what was gathered since they were asked for last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from opentelemetry.sdk.metrics.export import InMemoryMetricReader

SCOPE = "devsynth_providers"


class Point(NamedTuple):
    """One row of a metric: *sum* of what was counted or measured, how often, and traces that exemplars lead to."""

    labels: dict[str, Any]
    sum: float
    times: int
    bounds: tuple[float, ...]
    traces: frozenset[int]


@dataclass(frozen=True)
class Points:
    """All rows, by the names of metrics."""

    rows: dict[str, list[Point]]

    def total(self, name: str, **labels: object) -> float:
        """The sum of *name* over all rows with these *labels*, of which a dot is written as two underscores."""
        return sum(point.sum for point in self.of(name, **labels))

    def of(self, name: str, **labels: object) -> list[Point]:
        wanted = {key.replace("__", "."): value for key, value in labels.items()}
        return [point for point in self.rows.get(name, []) if wanted.items() <= point.labels.items()]


def points(reader: InMemoryMetricReader) -> Points:
    rows: dict[str, list[Point]] = {}
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            if scope.scope.name == SCOPE:
                for metric in scope.metrics:
                    rows[metric.name] = [_point(each) for each in metric.data.data_points]
    return Points(rows)


def _point(each: Any) -> Point:
    histogram = hasattr(each, "bucket_counts")
    return Point(
        dict(each.attributes or {}),
        each.sum if histogram else each.value,
        each.count if histogram else 1,
        tuple(each.explicit_bounds) if histogram else (),
        frozenset(exemplar.trace_id for exemplar in each.exemplars),
    )
