// What is open, which model is looked at and which layers are drawn, kept in the URL's fragment so that a colleague can
// be sent the same view.

import type { HeatOf } from "./experience.ts";

export type Kind = "cluster" | "cell" | "model";

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
const KINDS: readonly string[] = ["cluster", "cell", "model"];
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
