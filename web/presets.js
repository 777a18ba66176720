// A choice on NAG-PAG Guidance (Advanced) that sets several inputs at once. It is the frontend's alone: what it sets is
// seen on the node's other widgets, and these are what is saved and queued. Which presets there are comes with the
// node's definition (nodes/schema.py), its words with the translations (locales/<language>/main.json).
import { app } from "../../scripts/app.js";
import { after } from "./after.js";
import { ownWords, shownWith } from "./words.js";

const PRESETS = "nag_pag_presets";

function widget(node, name) {
  return node.widgets?.find((one) => one.name === name);
}

function presetOf(node, presets, own) {
  const isLinked = (name) => node.inputs?.find((input) => input.name === name)?.link != null;
  const isSet = ([name, value]) => widget(node, name)?.value === value && !isLinked(name);
  return Object.keys(presets).find((one) => Object.entries(presets[one]).every(isSet)) ?? own;
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

function addChoice(node, presets, words, meanings) {
  const values = [...Object.keys(presets), words.own];
  const options = { values, serialize: false, getOptionLabel: shownWith(meanings) };
  const choice = node.addWidget("combo", "preset", words.own, (name) => choose(node, presets[name]), options);
  choice.serialize = false; // it stands last, so that the places of the others in a saved workflow stay
  choice.label = words.name;
  choice.tooltip = words.tooltip;
  return choice;
}

app.registerExtension({
  name: "nag-pag-flux.presets",
  async beforeRegisterNodeDef(nodeType, nodeData) {
    const inputs = { ...nodeData.input?.required, ...nodeData.input?.optional };
    const presets = Object.values(inputs).map((spec) => spec[1]?.[PRESETS]).find(Boolean);
    if (!presets) return;
    const { preset: words, choices } = await ownWords();
    after(nodeType.prototype, "onNodeCreated", (node) => {
      const others = [...(node.widgets ?? [])];
      const choice = addChoice(node, presets, words, choices?.preset);
      const show = () => { choice.value = presetOf(node, presets, words.own); };
      for (const one of [...others, choice]) after(one, "callback", show);
      show();
      for (const method of ["onConfigure", "onConnectionsChange"]) after(node, method, show);
    });
  },
});
