// Keeps circles apart: a metro with clusters of four providers would else show one. Each circle stays as near to its
// place as the others let it, and goes back to it as the map is zoomed.

export interface Disc {
  name: string;
  x: number;
  y: number;
  r: number;
}

export interface Offset {
  dx: number;
  dy: number;
}

const ROUNDS = 60;
const PADDING_PX = 1.5;
const GOLDEN_ANGLE = Math.PI * (3 - Math.sqrt(5));

/** How far each disc is moved, in pixels, by name. The same discs give the same offsets. */
export function spread(discs: readonly Disc[]): Map<string, Offset> {
  const x = Float64Array.from(discs, (disc) => disc.x);
  const y = Float64Array.from(discs, (disc) => disc.y);
  // A grain of offset, different for each, so that discs at one place know which way to go.
  discs.forEach((_, i) => {
    x[i]! += 0.01 * Math.cos(i * GOLDEN_ANGLE);
    y[i]! += 0.01 * Math.sin(i * GOLDEN_ANGLE);
  });
  const reach = 2 * Math.max(0, ...discs.map((disc) => disc.r)) + PADDING_PX;
  for (let round = 0; round < ROUNDS; round++) {
    // The pull homeward fades, so that the last rounds only part what still touches.
    const pull = 0.08 * (1 - round / ROUNDS);
    discs.forEach((disc, i) => {
      x[i]! += (disc.x - x[i]!) * pull;
      y[i]! += (disc.y - y[i]!) * pull;
    });
    if (!part(discs, x, y, reach) && round > 0 && pull < 0.01) break;
  }
  return new Map(discs.map((disc, i) => [disc.name, { dx: x[i]! - disc.x, dy: y[i]! - disc.y }]));
}

function part(discs: readonly Disc[], x: Float64Array, y: Float64Array, reach: number): boolean {
  const order = Array.from(discs.keys()).sort((a, b) => x[a]! - x[b]! || a - b);
  let touched = false;
  order.forEach((i, at) => {
    for (let next = at + 1; next < order.length; next++) {
      const j = order[next]!;
      if (x[j]! - x[i]! > reach) break;
      const dx = x[j]! - x[i]!;
      const dy = y[j]! - y[i]!;
      const apart = discs[i]!.r + discs[j]!.r + PADDING_PX;
      const far = Math.hypot(dx, dy) || 1e-6;
      if (far >= apart) continue;
      touched = true;
      const push = (apart - far) / far / 2;
      x[i]! -= dx * push;
      y[i]! -= dy * push;
      x[j]! += dx * push;
      y[j]! += dy * push;
    }
  });
  return touched;
}
