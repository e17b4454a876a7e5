// What the keys do to the map: plus and minus zoom, arrows move, 0 shows the whole world.

import { panned, type Viewport, WHOLE, zoomed } from "./viewport.ts";

const STEP_PX = 60;
const FACTOR = 1.5;

export type Move = (from: Viewport) => Viewport;

/** The move of a key in a frame of this size; undefined for a key that is not the map's. */
export function moveOf(key: string, width: number, height: number): Move | undefined {
  const zoom = (factor: number): Move => {
    return (from) => zoomed(from, factor, width / 2, height / 2, width, height);
  };
  const pan = (dx: number, dy: number): Move => {
    return (from) => panned(from, dx, dy, width, height);
  };
  switch (key) {
    case "+":
    case "=":
      return zoom(FACTOR);
    case "-":
      return zoom(1 / FACTOR);
    case "0":
      return () => WHOLE;
    case "ArrowLeft":
      return pan(STEP_PX, 0);
    case "ArrowRight":
      return pan(-STEP_PX, 0);
    case "ArrowUp":
      return pan(0, STEP_PX);
    case "ArrowDown":
      return pan(0, -STEP_PX);
    default:
      return undefined;
  }
}
