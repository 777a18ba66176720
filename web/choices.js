// A choice's words are typed in NAG-PAG Compare, over HTTP and on the command line, and are the same in all languages.
// In all but English each shows what it means behind it. The preset is no input of the node: web/presets.js.
import { app } from "../../scripts/app.js";
import { after } from "./after.js";
import { ownWords, shownWith } from "./words.js";

app.registerExtension({
  name: "nag-pag-flux.choices",
  async beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.name.startsWith("NAGPAG")) return;
    const { choices } = await ownWords();
    after(nodeType.prototype, "onNodeCreated", (node) => {
      for (const widget of node.widgets ?? []) {
        if (choices?.[widget.name]) widget.options.getOptionLabel = shownWith(choices[widget.name]);
      }
    });
  },
});
