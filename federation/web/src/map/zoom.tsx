// The buttons that zoom, for those who neither have a wheel nor know the keys.

import { type Move, moveOf } from "./keyboard.ts";

interface ZoomProps {
  isWhole: boolean;
  width: number;
  height: number;
  onMove: (move: Move) => void;
}

export function ZoomButtons({ isWhole, width, height, onMove }: ZoomProps) {
  const press = (key: string) => () => onMove(moveOf(key, width, height)!);
  return (
    <div class="zoom" role="group" aria-label="Zoom">
      <button type="button" aria-label="Zoom in" onClick={press("+")}>
        +
      </button>
      <button type="button" aria-label="Zoom out" disabled={isWhole} onClick={press("-")}>
        −
      </button>
      <button type="button" aria-label="Show the whole world" disabled={isWhole} onClick={press("0")}>
        ⤢
      </button>
    </div>
  );
}
