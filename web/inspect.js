// Shows the text of NAG-PAG Inspect Model on the node, as the frontend does by itself only for its own PreviewAny.
import { app } from "../../scripts/app.js";
import { ComfyWidgets } from "../../scripts/widgets.js";

function textWidget(node) {
  const found = node.widgets?.find((widget) => widget.name === "found");
  if (found) return found;
  const { widget } = ComfyWidgets.STRING(node, "found", ["STRING", { multiline: true }], app);
  if (widget.inputEl) widget.inputEl.readOnly = true;
  // It shows what was found; it is neither sent with a prompt nor saved with a workflow.
  widget.serialize = false;
  widget.options.serialize = false;
  widget.options.read_only = true;
  return widget;
}

app.registerExtension({
  name: "nag-pag-flux.inspect",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name !== "NAGPAGInspect") return;
    const onExecuted = nodeType.prototype.onExecuted;
    nodeType.prototype.onExecuted = function (output) {
      onExecuted?.apply(this, arguments);
      textWidget(this).value = (output?.text ?? []).join("");
    };
  },
});
