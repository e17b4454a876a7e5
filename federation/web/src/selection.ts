// What is open, which model is looked at and which layers are drawn, kept in the URL's fragment so that a colleague can
// be sent the same view.

import type { HeatOf } from "./experience.ts";

/** A place is named by its latitude and longitude. */
export type Kind = "cluster" | "cell" | "model" | "place";

export interface Selection {
  kind: Kind;
  name: string;
}

export interface Place {
  selection: Selection | null;
  /** The model that the map is narrowed to; empty for all. */
  model: string;
  arcs: boolean;
  /** What the heat shows; empty for none. */
  heat: HeatOf | "";
  /** Whether the isochrones of the model are drawn. */
  isochrones: boolean;
}

export const START: Place = { selection: null, model: "", arcs: true, heat: "", isochrones: false };
const KINDS: readonly string[] = ["cluster", "cell", "model", "place"];
const HEATS: readonly string[] = ["rtt", "late"];

export function parsePlace(hash: string): Place {
  const [path = "", query = ""] = hash.replace(/^#/, "").split("?", 2);
  const slash = path.indexOf("/");
  const kind = path.slice(0, Math.max(0, slash));
  const name = decode(path.slice(slash + 1));
  const options = new URLSearchParams(query);
  const heat = options.get("heat") ?? "";
  return {
    selection: KINDS.includes(kind) && name ? { kind: kind as Kind, name } : null,
    model: options.get("model") ?? "",
    arcs: options.get("arcs") !== "off",
    heat: HEATS.includes(heat) ? (heat as HeatOf) : "",
    isochrones: options.get("isochrones") === "on",
  };
}

export function formatPlace(place: Place): string {
  const path = place.selection ? `${place.selection.kind}/${encodeURIComponent(place.selection.name)}` : "";
  const options = new URLSearchParams();
  if (place.model) options.set("model", place.model);
  if (!place.arcs) options.set("arcs", "off");
  if (place.heat) options.set("heat", place.heat);
  if (place.isochrones) options.set("isochrones", "on");
  const query = options.size ? `?${options}` : "";
  return `#${path}${query}`;
}

/** The name of a place, to a hundredth of a degree: about a kilometre. */
export function formatCoordinates(lat: number, lon: number): string {
  return `${lat.toFixed(2)},${lon.toFixed(2)}`;
}

/** Latitude and longitude of a place's name; null when it names none. */
export function parseCoordinates(name: string): [number, number] | null {
  const match = /^(-?\d{1,2}(?:\.\d+)?),(-?\d{1,3}(?:\.\d+)?)$/.exec(name);
  const [lat, lon] = [Number(match?.[1]), Number(match?.[2])];
  return Math.abs(lat) <= 90 && Math.abs(lon) <= 180 ? [lat, lon] : null;
}

export function placeTitle(lat: number, lon: number): string {
  const side = (value: number, sides: string) => `${Math.abs(value).toFixed(2)}° ${sides[value < 0 ? 1 : 0]}`;
  return `${side(lat, "NS")}, ${side(lon, "EW")}`;
}

export function isSame(a: Selection | null, b: Selection | null): boolean {
  return a?.kind === b?.kind && a?.name === b?.name;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
