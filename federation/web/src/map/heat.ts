// From what the users of each cell experience to a field over the grid: the mean of the users around each place.

import { type Experience, type HeatOf, heatValue } from "../experience.ts";
import type { LatencyBasis } from "../views.ts";
import { type Grid, middleOf } from "./grid.ts";

/** How far a cell's experience stands for the land around it. */
const KERNEL_KM = 400;
const CUT_OFF_KM = 1200;
const KM_PER_DEGREE = 111.2;
/** What is farther from all users than this is left blank. */
const BLANK_FROM_KM = 600;

export const COVERED_FROM = kernel(BLANK_FROM_KM);

export interface Field {
  /** Mean value of the users around each square; NaN where none are. */
  value: Float64Array;
  /** How near the nearest users are: at least COVERED_FROM where the field is drawn. */
  nearness: Float64Array;
  /** Share of the users around whose value is known no better. */
  inferred: Float64Array;
  prior: Float64Array;
}

/** Work and memory are bounded by the grid and linear in the cells. */
export function heatField(grid: Grid, of: HeatOf, cells: readonly Experience[]): Field {
  const size = grid.columns * grid.rows;
  const [sum, weight, nearness] = [new Float64Array(size), new Float64Array(size), new Float64Array(size)];
  const known = { measured: new Float64Array(size), inferred: new Float64Array(size), prior: new Float64Array(size) };
  for (const cell of cells) {
    const value = heatValue(of, cell);
    if (value === null) continue;
    const basis: LatencyBasis = cell.basis ?? "prior";
    for (const [square, km] of around(grid, cell.lon, cell.lat)) {
      const near = kernel(km);
      const share = near * cell.rps;
      sum[square]! += share * value;
      weight[square]! += share;
      known[basis][square]! += share;
      nearness[square] = Math.max(nearness[square]!, near);
    }
  }
  const part = (of: Float64Array) =>
    of.map((one, square) => (weight[square]! > 0 ? one / weight[square]! : Number.NaN));
  return { value: part(sum), nearness, inferred: part(known.inferred), prior: part(known.prior) };
}

function kernel(km: number): number {
  return Math.exp(-((km / KERNEL_KM) ** 2));
}

/** Squares within reach of a place, and how far their middles are. */
function* around(grid: Grid, lon: number, lat: number): Generator<[square: number, km: number]> {
  const reach = CUT_OFF_KM / KM_PER_DEGREE;
  const first = Math.max(0, Math.floor((grid.north - lat - reach) / grid.step));
  const last = Math.min(grid.rows - 1, Math.floor((grid.north - lat + reach) / grid.step));
  for (let row = first; row <= last; row++) {
    const [, rowLat] = middleOf(grid, 0, row);
    const narrow = Math.max(0.05, Math.cos(((rowLat + lat) / 2) * (Math.PI / 180)));
    const half = Math.min(grid.columns / 2 - 1, Math.ceil(reach / narrow / grid.step));
    const middle = Math.floor((lon - grid.west) / grid.step);
    for (let column = middle - half; column <= middle + half; column++) {
      const [columnLon] = middleOf(grid, column, row);
      const km = KM_PER_DEGREE * Math.hypot(rowLat - lat, (columnLon - lon) * narrow);
      if (km > CUT_OFF_KM) continue;
      yield [row * grid.columns + (((column % grid.columns) + grid.columns) % grid.columns), km];
    }
  }
}
