// What is open and which model is looked at, kept in the URL's fragment so that a colleague can be sent the same view.

export type Kind = "cluster" | "cell" | "model";

export interface Selection {
  kind: Kind;
  name: string;
}

export interface Place {
  selection: Selection | null;
  /** The model that the map is narrowed to; empty for all. */
  model: string;
}

const KINDS: readonly string[] = ["cluster", "cell", "model"];

export function parsePlace(hash: string): Place {
  const [path = "", query = ""] = hash.replace(/^#/, "").split("?", 2);
  const slash = path.indexOf("/");
  const kind = path.slice(0, Math.max(0, slash));
  const name = decode(path.slice(slash + 1));
  const selection = KINDS.includes(kind) && name ? { kind: kind as Kind, name } : null;
  return { selection, model: new URLSearchParams(query).get("model") ?? "" };
}

export function formatPlace(place: Place): string {
  const path = place.selection ? `${place.selection.kind}/${encodeURIComponent(place.selection.name)}` : "";
  const query = place.model ? `?${new URLSearchParams({ model: place.model })}` : "";
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
