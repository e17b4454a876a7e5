import assert from "node:assert/strict";
import { test } from "node:test";
import {
  formatCoordinates,
  formatPlace,
  isSame,
  parseCoordinates,
  parsePlace,
  placeTitle,
  START,
} from "../src/selection.ts";
import { MAX_EVENTS, withEvent } from "../src/state.ts";
import type { EventView } from "../src/views.ts";

const event = (id: number, at_s = id) => ({ id, at_s }) as EventView;

test("a link shows a colleague the same view, whatever a name is made of", () => {
  for (const name of ["New York", "Saint-Denis/Réunion", "a?b#c%", "東京"]) {
    const place = {
      selection: { kind: "cell" as const, name },
      model: "chat & rank",
      arcs: false,
      heat: "late" as const,
      isochrones: true,
    };
    assert.deepEqual(parsePlace(formatPlace(place)), place);
    assert.deepEqual(parsePlace(formatPlace({ ...START, selection: place.selection })).heat, "");
  }
});

test("a link that is damaged opens nothing and breaks nothing", () => {
  for (const hash of ["", "#", "#cell", "#cell/", "#nonsense/fra", "#/fra", "#?heat=spite"]) {
    assert.deepEqual(parsePlace(hash), START);
  }
  assert.deepEqual(parsePlace("#cluster/50%").selection, { kind: "cluster", name: "50%" });
});

test("the same name of another kind is another thing", () => {
  assert.equal(isSame({ kind: "cell", name: "fra" }, { kind: "cluster", name: "fra" }), false);
  assert.equal(isSame(null, null), true);
});

test("events are told once each, the newest first, and never fill the memory", () => {
  let events: readonly EventView[] = [];
  for (let id = 0; id < MAX_EVENTS + 5; id++) events = withEvent(events, event(id));
  assert.deepEqual([events.length, events[0]?.id], [MAX_EVENTS, MAX_EVENTS + 4]);
  assert.equal(withEvent(events, event(MAX_EVENTS)), events);
  assert.equal(withEvent(events, event(MAX_EVENTS, 1e9))[0]?.at_s, 1e9, "a controller that started anew counts anew");
});

test("a place on the map is a name that a link can carry, and nothing else is one", () => {
  assert.deepEqual(parseCoordinates(formatCoordinates(-33.868, 151.209)), [-33.87, 151.21]);
  assert.equal(placeTitle(-33.87, 151.21), "33.87° S, 151.21° E");
  for (const name of ["", "fra", "1", "91,0", "0,181", "1,2,3", "1e9,1", "NaN,0"]) {
    assert.equal(parseCoordinates(name), null);
  }
});
