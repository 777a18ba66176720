// Who types what this pack is for finds NAG-PAG Guidance first. The frontend's search ranks by a node's id and title; what
// is found by its search terms alone comes last, and among equals the shorter id is first, which would be NAG-PAG Plot.
import { app } from "../../scripts/app.js";

const FIRST = ["NAGPAGGuidance", "NAGPAGGuidanceAdvanced"];
// The frontend's ranks (calcAuxSingle in its fuseUtil.ts): 0 the whole title, 1 its beginning, 2 a word of it, 3 a part of
// it, 4 and 5 its words or parts in another order, 9 none of it.
const PART_OF_TITLE = 3;
const NOT_IN_TITLE = 9;

// Scores are compared from the left, less is better; the second is how often a node is used, negated. Where the title itself
// was typed, nodes that are known to be used stay before ours.
function scoresAt(place) {
  return ([rank, ...rest]) =>
    rank < NOT_IN_TITLE ? [rank, place / FIRST.length - 1, ...rest] : [PART_OF_TITLE, place - Number.MAX_SAFE_INTEGER, ...rest];
}

app.registerExtension({
  name: "nag-pag-flux.search",
  beforeRegisterVueAppNodeDefs(nodeDefs) {
    for (const one of nodeDefs) {
      const place = FIRST.indexOf(one.name);
      if (place >= 0) one.postProcessSearchScores = scoresAt(place);
    }
  },
});
