const GAP = "  ";

/**
 * Rows as aligned columns. Numbers stand to the right; the last column is not padded.
 *
 * @param head Absent for a table without a heading.
 */
export function formatTable(
  rows: readonly (readonly (string | number)[])[],
  head?: readonly string[],
): string[] {
  const all = head === undefined ? rows : [head, ...rows];
  const widths: number[] = [];
  for (const row of all) {
    for (const [column, cell] of row.entries()) {
      widths[column] = Math.max(widths[column] ?? 0, Bun.stringWidth(String(cell)));
    }
  }
  return all.map((row) =>
    row
      .map((cell, column) => {
        const padding = " ".repeat((widths[column] as number) - Bun.stringWidth(String(cell)));
        return typeof cell === "number" ? padding + cell : String(cell) + padding;
      })
      .join(GAP)
      .trimEnd(),
  );
}
