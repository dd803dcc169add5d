"""The spans of one call as text: a look at the trace for those who have no Jaeger at hand."""

from __future__ import annotations

from typing import Any

from typing_extensions import override


class SpanTree:
    """An OpenTelemetry span exporter that keeps what it is given; ``str`` draws it."""

    def __init__(self) -> None:
        self._spans: list[Any] = []

    def export(self, spans: Any) -> Any:
        from opentelemetry.sdk.trace.export import SpanExportResult  # noqa: PLC0415 - only where it is traced

        self._spans.extend(spans)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing to let go of."""

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True

    @override
    def __str__(self) -> str:
        if not self._spans:
            return "no spans"
        known = {span.context.span_id for span in self._spans}
        roots = [span for span in self._spans if span.parent is None or span.parent.span_id not in known]
        lines = [f"trace {roots[0].context.trace_id:032x}"]
        for root in roots:
            self._draw(root, 1, lines)
        return "\n".join(lines)

    def _draw(self, span: Any, depth: int, lines: list[str]) -> None:
        indent = "  " * depth
        took = (span.end_time - span.start_time) / 1e9
        lines.append(f"{indent}{span.name}  {took:.3f} s  {span.status.status_code.name.lower()}")
        lines += [f"{indent}    {name} = {value}" for name, value in sorted(span.attributes.items())]
        for event in span.events:
            facts = ", ".join(f"{name}={value}" for name, value in event.attributes.items())
            lines.append(f"{indent}    * {event.name}: {facts}")
        children = [each for each in self._spans if each.parent and each.parent.span_id == span.context.span_id]
        for child in sorted(children, key=lambda each: each.start_time):
            self._draw(child, depth + 1, lines)
