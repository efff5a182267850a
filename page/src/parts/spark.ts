// A line of a few values as an SVG path. Null is a gap.

export function sparkPath(
  values: readonly (number | null)[],
  width: number,
  height: number,
  range?: { readonly low: number; readonly high: number },
): string {
  let low = range?.low ?? Number.POSITIVE_INFINITY;
  let high = range?.high ?? Number.NEGATIVE_INFINITY;
  if (!range)
    for (const value of values) {
      if (value === null) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  const step = values.length > 1 ? (width - 2) / (values.length - 1) : 0;
  const scale = high > low ? (height - 3) / (high - low) : 0;
  let path = "";
  let pen = false;
  values.forEach((value, index) => {
    if (value === null || !Number.isFinite(value)) {
      pen = false;
      return;
    }
    const y = scale ? height - 1.5 - (value - low) * scale : height / 2;
    path += `${pen ? "L" : "M"}${(1 + index * step).toFixed(1)} ${y.toFixed(1)}`;
    pen = true;
  });
  return path;
}
