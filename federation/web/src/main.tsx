// Puts the parts together: the store hears the stream and the URL, and the page is drawn from the store.

import { render } from "preact";
import { App } from "./app.tsx";
import { Store } from "./state.ts";
import { Stream } from "./stream.ts";
import { restoreTheme } from "./theme.ts";

const AGES_GROW_EVERY_MS = 1_000;
const root = document.getElementById("app")!;
let frame = 0;

function draw(): void {
  if (frame) return;
  frame = requestAnimationFrame(() => {
    frame = 0;
    render(<App store={store} state={store.state} nowMs={Date.now()} />, root);
  });
}

restoreTheme();
const store = new Store(draw);
store.place(location.hash);
addEventListener("hashchange", () => store.place(location.hash));
setInterval(draw, AGES_GROW_EVERY_MS);
void new Stream(store).open();
draw();
