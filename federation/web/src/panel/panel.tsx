// What was opened, and why it is so. Without a selection: what needs attention now.

import { useShown } from "../context.tsx";
import { parseCoordinates } from "../selection.ts";
import { Attention } from "./attention.tsx";
import { CellPanel } from "./cell.tsx";
import { ClusterPanel } from "./cluster.tsx";
import { ModelPanel } from "./model.tsx";
import { PlacePanel } from "./place.tsx";
import { Sheet } from "./sheet.tsx";

export function Panel() {
  const { state, view } = useShown();
  const { selection } = state;
  if (!selection) return <Attention />;
  const key = `${selection.kind}/${selection.name}`;
  const cluster = selection.kind === "cluster" && view.clusters.find((one) => one.name === selection.name);
  const cell = selection.kind === "cell" && view.cells.find((one) => one.name === selection.name);
  const model = selection.kind === "model" && view.models.find((one) => one.name === selection.name);
  if (cluster) return <ClusterPanel key={key} cluster={cluster} />;
  if (cell) return <CellPanel key={key} cell={cell} />;
  if (model) return <ModelPanel key={key} model={model} />;
  if (selection.kind === "place" && parseCoordinates(selection.name)) {
    return <PlacePanel key={key} name={selection.name} />;
  }
  return (
    <Sheet key={key} kind={selection.kind} title={selection.name}>
      <p>
        The controller knows no {selection.kind} of this name now. It may have been removed, or nobody asks from there.
      </p>
    </Sheet>
  );
}
