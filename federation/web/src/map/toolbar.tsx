// Which model is looked at, and which layers are drawn.

import { useShown } from "../context.tsx";
import { type HeatOf, SCALES } from "../experience.ts";
import { formatPlace, type Place } from "../selection.ts";

export function Toolbar() {
  const { state, view } = useShown();
  const show = (change: Partial<Place>) => {
    location.hash = formatPlace({ ...state, ...change });
  };
  return (
    <div class="toolbar">
      <label>
        Model
        <select value={state.model} onChange={(event) => show({ model: event.currentTarget.value })}>
          <option value="">All models</option>
          {view.models.map((model) => (
            <option key={model.name} value={model.name}>
              {model.name}
            </option>
          ))}
        </select>
      </label>
      <label>
        Heat
        <select value={state.heat} onChange={(event) => show({ heat: event.currentTarget.value as HeatOf | "" })}>
          <option value="">None</option>
          {Object.entries(SCALES).map(([name, scale]) => (
            <option key={name} value={name}>
              {scale.title}
            </option>
          ))}
        </select>
      </label>
      <label
        class="check"
        title={
          state.model ? "the land within the objective of ready replicas" : "choose a model: each has an objective"
        }
      >
        <input
          type="checkbox"
          checked={state.isochrones && state.model !== ""}
          disabled={state.model === ""}
          onChange={(event) => show({ isochrones: event.currentTarget.checked })}
        />
        Isochrones
      </label>
      <label class="check">
        <input type="checkbox" checked={state.arcs} onChange={(event) => show({ arcs: event.currentTarget.checked })} />
        Arcs
      </label>
      <button type="button" class="skip" onClick={() => document.getElementById("dock-tab-0")?.focus()}>
        Skip the map
      </button>
    </div>
  );
}
