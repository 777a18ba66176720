// A choice on NAG-PAG Guidance (Advanced) that sets several inputs at once. It is the frontend's alone: what it sets is
// seen on the node's other widgets, and these are what is saved and queued. Which presets there are comes with the
// node's definition (nodes/schema.py).
import { app } from "../../scripts/app.js";

const PRESETS = "nag_pag_presets";
const NONE = "own settings";

function widget(node, name) {
  return node.widgets?.find((one) => one.name === name);
}

function presetOf(node, presets) {
  const isSet = ([name, value]) => widget(node, name)?.value === value;
  return Object.keys(presets).find((one) => Object.entries(presets[one]).every(isSet)) ?? NONE;
}

function choose(node, values) {
  for (const [name, value] of Object.entries(values ?? {})) {
    const one = widget(node, name);
    if (!one || one.value === value) continue;
    one.value = value;
    one.callback?.(value, app.canvas, node);
  }
  node.setDirtyCanvas?.(true, true);
}

function after(object, method, then) {
  const before = object[method];
  object[method] = function () {
    const result = before?.apply(this, arguments);
    then(this);
    return result;
  };
}

function addChoice(node, presets) {
  const values = [...Object.keys(presets), NONE];
  const options = { values, serialize: false };
  const choice = node.addWidget("combo", "preset", NONE, (name) => choose(node, presets[name]), options);
  choice.serialize = false; // it stands last, so that the places of the others in a saved workflow stay
  choice.tooltip = "Sets the inputs above at once.";
  return choice;
}

app.registerExtension({
  name: "nag-pag-flux.presets",
  beforeRegisterNodeDef(nodeType, nodeData) {
    const inputs = { ...nodeData.input?.required, ...nodeData.input?.optional };
    const presets = Object.values(inputs).map((spec) => spec[1]?.[PRESETS]).find(Boolean);
    if (!presets) return;
    after(nodeType.prototype, "onNodeCreated", (node) => {
      const others = [...(node.widgets ?? [])];
      const choice = addChoice(node, presets);
      const show = () => { choice.value = presetOf(node, presets); };
      for (const one of others) after(one, "callback", show);
      show();
      after(node, "onConfigure", show);
    });
  },
});
