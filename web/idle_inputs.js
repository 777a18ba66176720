// An input that does nothing beside the other settings says so, behind its name on the node. Which input needs what of
// which other one comes with the node's definition (nodes/schema.py).
import { app } from "../../scripts/app.js";
import { after } from "./after.js";
import { ownWords } from "./words.js";

const NEEDS = "nag_pag_needs";

const UNKNOWN = {};

function valueOf(node, name) {
  const widget = node.widgets?.find((one) => one.name === name);
  const linked = node.inputs?.find((input) => input.name === name)?.link != null;
  if (widget) return linked ? UNKNOWN : widget.value; // what comes over a link is known when it runs
  return linked ? "linked" : null;
}

function isMet(node, { name, options, above }) {
  const value = valueOf(node, name);
  if (value === UNKNOWN) return true;
  return above == null ? options.includes(value) : value > above;
}

function say(node, needs, idle) {
  for (const [name, some] of Object.entries(needs)) {
    const widget = node.widgets?.find((one) => one.name === name);
    if (!widget) continue;
    const label = (widget.label ?? widget.name).replace(idle, "");
    const said = some.some((need) => isMet(node, need)) ? label : label + idle;
    if (said !== (widget.label ?? widget.name)) widget.label = said;
  }
  node.setDirtyCanvas?.(true, true);
}

app.registerExtension({
  name: "nag-pag-flux.idle-inputs",
  async beforeRegisterNodeDef(nodeType, nodeData) {
    const inputs = { ...nodeData.input?.required, ...nodeData.input?.optional };
    const needs = Object.fromEntries(
      Object.entries(inputs).filter(([, spec]) => spec[1]?.[NEEDS]).map(([name, spec]) => [name, spec[1][NEEDS]]),
    );
    if (!Object.keys(needs).length) return;
    const idle = ` (${(await ownWords()).idle})`;
    after(nodeType.prototype, "onNodeCreated", (node) => {
      for (const widget of node.widgets ?? []) after(widget, "callback", () => say(node, needs, idle));
      say(node, needs, idle);
    });
    after(nodeType.prototype, "onConfigure", (node) => say(node, needs, idle));
    after(nodeType.prototype, "onConnectionsChange", (node) => say(node, needs, idle));
  },
});
