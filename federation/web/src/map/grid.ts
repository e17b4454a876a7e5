// A grid over the inhabited earth: what a layer holds of the world, however many cells and clusters there are.

import { contours } from "d3-contour";
import type { Basemap, Point } from "./basemap.ts";

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

type Ring = readonly (readonly [x: number, y: number])[];

/** Rings around the areas where values are at least `least`, in squares. NaN is no value. */
function rings(grid: Grid, values: ArrayLike<number>, least: number): Ring[] {
  const found = contours().size([grid.columns, grid.rows]).contour(Array.from(values), least);
  return found.coordinates.flat() as unknown as Ring[];
}

function projected(base: Basemap, grid: Grid, [x, y]: readonly [number, number]): Point {
  const edge = grid.west + 1e-6;
  const lon = Math.min(Math.max(grid.west + x * grid.step, edge), grid.west + 360 - 1e-6);
  return base.point(lon, grid.north - y * grid.step);
}

const text = ([x, y]: Point) => `${x.toFixed(1)} ${y.toFixed(1)}`;

/** The area where values are at least `least`, as a path. */
export function areaPath(base: Basemap, grid: Grid, values: ArrayLike<number>, least: number): string {
  const drawn = rings(grid, values, least).map((ring) => ring.map((at) => text(projected(base, grid, at))));
  return drawn.map((ring) => `M${ring.join("L")}Z`).join("");
}

/** Where values pass `least`, in pixels: the borders of the area, without those that are the grid's own. */
export function borders(base: Basemap, grid: Grid, values: ArrayLike<number>, least: number): Point[][] {
  const isEdge = ([x, y]: readonly [number, number]) => x <= 0 || y <= 0 || x >= grid.columns || y >= grid.rows;
  return rings(grid, values, least).flatMap((ring) => {
    const open: Point[][] = [[]];
    for (const at of ring) {
      if (isEdge(at)) open.push([]);
      else open.at(-1)!.push(projected(base, grid, at));
    }
    // A ring that the edge has cut goes on where it began.
    if (open.length > 1) open[0] = [...open.pop()!, ...open[0]!];
    return open.filter((line) => line.length > 1);
  });
}

export function linePath(drawn: readonly Point[][]): string {
  return drawn.map((line) => `M${line.map(text).join("L")}`).join("");
}
