// The frame's size, and what pointers do to the map.

import { useEffect, useLayoutEffect, useState } from "preact/hooks";
import type { Move } from "./keyboard.ts";
import { panned, zoomed } from "./viewport.ts";

const DRAG_FROM_PX = 4;

export function useSize(frame: { current: HTMLElement | null }): { width: number; height: number } {
  const [size, setSize] = useState({ width: 800, height: 420 });
  useLayoutEffect(() => {
    const element = frame.current!;
    const measure = () => setSize({ width: element.clientWidth, height: element.clientHeight });
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  return size;
}

/** Wheel and pinch zoom, drag moves. A press that does not move stays a click. */
export function useGestures(svg: { current: SVGSVGElement | null }, setViewport: (change: Move) => void): void {
  useEffect(() => {
    const element = svg.current!;
    const pointers = new Map<number, { x: number; y: number }>();
    let dragging = false;

    const onWheel = (event: WheelEvent) => {
      event.preventDefault();
      const box = element.getBoundingClientRect();
      const factor = Math.exp(-event.deltaY * (event.deltaMode === 0 ? 0.0018 : 0.05));
      setViewport((from) =>
        zoomed(from, factor, event.clientX - box.left, event.clientY - box.top, box.width, box.height),
      );
    };
    const onDown = (event: PointerEvent) => {
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      dragging = false;
    };
    const onMove = (event: PointerEvent) => {
      const last = pointers.get(event.pointerId);
      if (!last) return;
      const dx = event.clientX - last.x;
      const dy = event.clientY - last.y;
      if (!dragging && Math.hypot(dx, dy) < DRAG_FROM_PX) return;
      if (!dragging) element.setPointerCapture(event.pointerId);
      dragging = true;
      const box = element.getBoundingClientRect();
      const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      if (other) {
        const before = Math.hypot(last.x - other.x, last.y - other.y) || 1;
        const after = Math.hypot(event.clientX - other.x, event.clientY - other.y);
        setViewport((from) =>
          zoomed(from, after / before, other.x - box.left, other.y - box.top, box.width, box.height),
        );
      } else {
        setViewport((from) => panned(from, dx, dy, box.width, box.height));
      }
    };
    const onUp = (event: PointerEvent) => pointers.delete(event.pointerId);
    const onClick = (event: MouseEvent) => {
      // The click that ends a drag is not meant for what happens to lie under it.
      if (dragging) event.stopPropagation();
      dragging = false;
    };
    const stop = new AbortController();
    const options = { signal: stop.signal };
    element.addEventListener("wheel", onWheel, { ...options, passive: false });
    element.addEventListener("pointerdown", onDown, options);
    element.addEventListener("pointermove", onMove, options);
    element.addEventListener("pointerup", onUp, options);
    element.addEventListener("pointercancel", onUp, options);
    element.addEventListener("click", onClick, { ...options, capture: true });
    return () => stop.abort();
  }, []);
}
