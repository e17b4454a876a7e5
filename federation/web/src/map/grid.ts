// A grid over the inhabited earth: what a layer holds of the world, however many cells and clusters there are.

import { contours } from "d3-contour";
import type { Basemap } from "./basemap.ts";

export interface Grid {
  /** Of the western and northern edges, in degrees. The map is cut at `west`, so that no polygon crosses the cut. */
  west: number;
  north: number;
  /** Width and height of a square in degrees. */
  step: number;
  columns: number;
  rows: number;
}

export const HEAT_GRID: Grid = { west: -169, north: 84, step: 2, columns: 180, rows: 71 };

/** Longitude and latitude of the middle of a square. */
export function middleOf(grid: Grid, column: number, row: number): [number, number] {
  return [grid.west + (column + 0.5) * grid.step, grid.north - (row + 0.5) * grid.step];
}

/** The square that a place is in, as an index into the grid's values; null outside. */
export function squareOf(grid: Grid, lon: number, lat: number): number | null {
  const east = (((lon - grid.west) % 360) + 360) % 360;
  const column = Math.floor(east / grid.step);
  const row = Math.floor((grid.north - lat) / grid.step);
  return column < grid.columns && row >= 0 && row < grid.rows ? row * grid.columns + column : null;
}

/** The area where values are at least `least`, as a path. NaN is no value. */
export function areaPath(base: Basemap, grid: Grid, values: ArrayLike<number>, least: number): string {
  const found = contours().size([grid.columns, grid.rows]).contour(Array.from(values), least);
  const edge = grid.west + 1e-6;
  const point = ([x, y]: number[]) => {
    const lon = Math.min(Math.max(grid.west + x! * grid.step, edge), grid.west + 360 - 1e-6);
    const [px, py] = base.point(lon, grid.north - y! * grid.step);
    return `${px.toFixed(1)} ${py.toFixed(1)}`;
  };
  return found.coordinates.flatMap((polygon) => polygon.map((ring) => `M${ring.map(point).join("L")}Z`)).join("");
}
