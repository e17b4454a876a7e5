// What is said of the mark under the pointer or the focus.

export interface Hint {
  /** In pixels of the frame: the point that the text stands above. */
  x: number;
  y: number;
  title: string;
  lines: string[];
}

const HALF_WIDTH_PX = 130;
const MARGIN_PX = 6;
const BELOW_UP_TO_PX = 110;

/** Where the text stands: inside the frame, and below the mark where there is no room above. */
export function tooltipPlace(hint: Hint, width: number): { left: number; top: number; below: boolean } {
  const least = HALF_WIDTH_PX + MARGIN_PX;
  const left = Math.min(Math.max(hint.x, least), Math.max(least, width - least));
  const below = hint.y < BELOW_UP_TO_PX;
  return { left, top: hint.y + (below ? 34 : -8), below };
}

export function Tooltip({ hint, width }: { hint: Hint; width: number }) {
  const { left, top, below } = tooltipPlace(hint, width);
  return (
    <div class={`tooltip${below ? " below" : ""}`} aria-hidden="true" style={{ left: `${left}px`, top: `${top}px` }}>
      <strong>{hint.title}</strong>
      {hint.lines.map((line) => (
        <div key={line}>{line}</div>
      ))}
    </div>
  );
}
