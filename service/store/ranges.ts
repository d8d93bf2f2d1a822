// ranges.ts - byte ranges of a region, however they were asked for.

export interface Span {
  offset: number;
  length: number;
}

/** A range as it was asked for: `first` absent counts from the end, `last` absent goes to it. Inclusive. */
export interface RangeSpec {
  first?: number;
  last?: number;
}

/** Cuts a range to the region; undefined when nothing of it is inside. */
export function resolveRange({ first, last }: RangeSpec, size: number): Span | undefined {
  if (first === undefined) {
    const length = Math.min(last ?? 0, size);
    return length === 0 ? undefined : { offset: size - length, length };
  }
  if (first >= size) return undefined;
  return { offset: first, length: Math.min(last ?? size - 1, size - 1) - first + 1 };
}

/** Merges what overlaps or touches. The order is that of the first mention. */
export function mergeSpans(spans: readonly Span[]): Span[] {
  const sorted = spans.map((span, order) => ({ ...span, order })).sort((a, b) => a.offset - b.offset);
  const merged: (Span & { order: number })[] = [];
  for (const span of sorted) {
    const before = merged.at(-1);
    if (before !== undefined && span.offset <= before.offset + before.length) {
      before.length = Math.max(before.length, span.offset + span.length - before.offset);
      before.order = Math.min(before.order, span.order);
    } else {
      merged.push(span);
    }
  }
  return merged.sort((a, b) => a.order - b.order).map(({ offset, length }) => ({ offset, length }));
}
