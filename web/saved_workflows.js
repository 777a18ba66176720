// Workflows that were saved before NAG-PAG Guidance had a sister open as they were: the sister, which has all inputs,
// takes the node's place. The host's node replacement acts only on nodes that are gone; graphs sent through the API are
// replaced in nodes/saved.py. Calibrate, saved before it knew of a negative prompt, goes on searching without one.
import { app } from "../../scripts/app.js";

const SIMPLE = "NAGPAGGuidance";
const ADVANCED = "NAGPAGGuidanceAdvanced";
// The widgets as the node then had them; a workflow has the first six, the first twelve or all.
const SAVED = [
  "scale", "blocks", "tau", "alpha", "start_percent", "end_percent",
  "reach", "renew_every", "negative", "temperature", "perturbation", "reach_blocks",
  "schedule", "guide_unconditional",
];
const FEWEST = 6; // the node of now has five
const SIMPLE_HAS = ["scale", "blocks", "start_percent", "end_percent", "negative_prompt"];
const CALIBRATE = "NAGPAGCalibrate";
// Its widgets as it then had them; negative_prompt stands behind reach now.
const CALIBRATE_HAD = ["candidates", "alphas", "reach", "pictures", "steps", "seed", "sigma"];
const titles = {};
const defaults = {}; // of the simple node
let widgets = {}; // of the sister, in its order: name → default

// Then the branch carried no negative prompt.
function byName(values) {
  const saved = SAVED.slice(0, values.length).map((name, i) => [name, values[i]]);
  return { negative_prompt: "off", ...Object.fromEntries(saved) };
}

function replace(node) {
  const values = node.widgets_values;
  if (node.type !== SIMPLE || !Array.isArray(values) || values.length < FEWEST) return;
  const saved = byName(values);
  node.widgets_values = Object.entries(widgets).map(([name, value]) => saved[name] ?? value);
  node.type = ADVANCED;
  if (node.properties?.["Node name for S&R"]) node.properties["Node name for S&R"] = ADVANCED;
  if (node.title === titles[SIMPLE]) node.title = titles[ADVANCED];
}

function replaceInApiGraph(graph) {
  const more = SAVED.filter((name) => !SIMPLE_HAS.includes(name)).concat("curve", "negative_conditioning");
  for (const node of Object.values(graph ?? {}))
    if (node?.class_type === SIMPLE && more.some((name) => name in (node.inputs ?? {}))) {
      node.class_type = ADVANCED;
      node.inputs.negative_prompt ??= "off";
    } else if (node?.class_type === CALIBRATE && CALIBRATE_HAD.every((name) => name in (node.inputs ?? {})))
      node.inputs.negative_prompt ??= "off";
}

function calibrateWithout(info) {
  const values = info?.widgets_values;
  if (!Array.isArray(values) || values.length !== CALIBRATE_HAD.length) return info;
  const at = CALIBRATE_HAD.indexOf("reach") + 1;
  return { ...info, widgets_values: [...values.slice(0, at), "off", ...values.slice(at)] };
}

// A node that is pasted, or comes with a node template, can't change its kind any more: it takes what it has inputs for.
function keepWhatFits(node, values) {
  const saved = byName(values);
  for (const widget of node.widgets ?? []) widget.value = saved[widget.name] ?? defaults[widget.name] ?? widget.value;
  const lost = Object.keys(saved).filter((name) => !SIMPLE_HAS.includes(name)).join(", ");
  const summary = `${titles[SIMPLE]} was copied from an earlier version`;
  const detail = `It has no ${lost} any more: take ${titles[ADVANCED]} for these.`;
  app.extensionManager?.toast?.add({ severity: "warn", summary, detail, life: 15000 });
}

app.registerExtension({
  name: "nag-pag-flux.saved-workflows",
  setup() {
    // An API graph, or a picture that holds one, is opened without asking extensions.
    const load = app.loadApiJson;
    app.loadApiJson = function (graph, ...rest) {
      replaceInApiGraph(graph);
      return load.call(this, graph, ...rest);
    };
  },
  beforeRegisterNodeDef(nodeType, nodeData) {
    titles[nodeData.name] = nodeData.display_name;
    const inputs = { ...nodeData.input?.required, ...nodeData.input?.optional };
    if (nodeData.name === SIMPLE) {
      for (const name of SIMPLE_HAS) defaults[name] = inputs[name]?.[1]?.default;
      const onConfigure = nodeType.prototype.onConfigure;
      nodeType.prototype.onConfigure = function (info) {
        onConfigure?.apply(this, arguments);
        const values = info?.widgets_values;
        if (Array.isArray(values) && values.length >= FEWEST) keepWhatFits(this, values);
      };
    }
    if (nodeData.name === CALIBRATE) {
      const configure = nodeType.prototype.configure;
      nodeType.prototype.configure = function (info, ...rest) {
        return configure.call(this, calibrateWithout(info), ...rest);
      };
    }
    if (nodeData.name !== ADVANCED) return;
    widgets = Object.fromEntries(
      Object.entries(inputs).filter(([name]) => [...SAVED, ...SIMPLE_HAS].includes(name)).map(([name, spec]) => [name, spec[1]?.default]),
    );
  },
  beforeConfigureGraph(graph) {
    const graphs = [graph, ...(graph?.definitions?.subgraphs ?? [])];
    graphs.forEach((one) => (one?.nodes ?? []).forEach(replace));
  },
});
