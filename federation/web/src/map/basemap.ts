// The world as geometry: land and borders bundled at build time, so that nothing is asked of a tile server.

import { type GeoProjection, geoCircle, geoInterpolate, geoNaturalEarth1, geoPath } from "d3-geo";
import { feature, mesh } from "topojson-client";
import type { GeometryCollection, Topology } from "topojson-specification";
import atlas from "world-atlas/countries-110m.json";

type Atlas = Topology<{ countries: GeometryCollection }>;

const ANTARCTICA = "010";
const world = atlas as unknown as Atlas;
const countries: GeometryCollection = {
  ...world.objects.countries,
  geometries: world.objects.countries.geometries.filter((country) => country.id !== ANTARCTICA),
};
const land = feature(world, countries);
const borders = mesh(world, countries, (a, b) => a !== b);
const MARGIN_PX = 14;
const MAX_CACHED_ARCS = 10_000;

export type Point = readonly [number, number];

export const translate = (at: Point) => `translate(${at[0].toFixed(1)} ${at[1].toFixed(1)})`;

/** All that is drawn from geography for one size of the map. */
export class Basemap {
  readonly land: string;
  readonly borders: string;
  readonly #projection: GeoProjection;
  readonly #arcs = new Map<string, string>();

  constructor(width: number, height: number) {
    this.#projection = geoNaturalEarth1()
      .rotate([-11, 0])
      .fitExtent(
        [
          [MARGIN_PX, MARGIN_PX],
          [Math.max(width - MARGIN_PX, MARGIN_PX + 1), Math.max(height - MARGIN_PX, MARGIN_PX + 1)],
        ],
        land,
      );
    const path = geoPath(this.#projection).digits(1);
    this.land = path(land) ?? "";
    this.borders = path(borders) ?? "";
  }

  point(lon: number, lat: number): Point {
    return this.#projection([lon, lat]) ?? [0, 0];
  }

  /** Longitude and latitude of a projected point; null beside the world. */
  place(at: Point): Point | null {
    return this.#projection.invert?.([...at]) ?? null;
  }

  /** The great circle between two places, as a path. */
  arc(from: Point, to: Point): string {
    const key = `${from},${to}`;
    let path = this.#arcs.get(key);
    if (path === undefined) {
      if (this.#arcs.size >= MAX_CACHED_ARCS) this.#arcs.clear();
      const line = { type: "LineString" as const, coordinates: [[...from], [...to]] };
      path = geoPath(this.#projection).digits(1)(line) ?? "";
      this.#arcs.set(key, path);
    }
    return path;
  }

  middle(from: Point, to: Point): Point {
    const [lon, lat] = geoInterpolate([...from], [...to])(0.5);
    return this.point(lon, lat);
  }

  /** Where it is night: demand follows the day. Declination to a degree, without the equation of time. */
  night(unixSeconds: number): string {
    const date = new Date(unixSeconds * 1000);
    const dayOfYear = (date.getTime() - Date.UTC(date.getUTCFullYear(), 0, 1)) / 86_400_000;
    const declination = -23.44 * Math.cos((2 * Math.PI * (dayOfYear + 10)) / 365.25);
    const noonLongitude = (12 - (unixSeconds % 86_400) / 3600) * 15;
    const shade = geoCircle()
      .center([noonLongitude + 180, -declination])
      .radius(90)();
    return geoPath(this.#projection).digits(1)(shade) ?? "";
  }
}
