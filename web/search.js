// Who types what this pack is for finds NAG-PAG Guidance first. The frontend's search ranks by a node's id and title:
// what is found by its search terms alone comes last, and of two that begin alike the shorter one is first, which would
// be NAG-PAG Plot. Each node's definition may correct its own scores (FuseSearchable in the frontend's fuseUtil.ts).
import { app } from "../../scripts/app.js";

const FIRST = ["NAGPAGGuidance", "NAGPAGGuidanceAdvanced"];
// Ranks: 0 the whole title was typed, 1 its beginning, 2 a word of it, 3 a part of it, 4 and 5 its words or parts in
// another order, 9 none of it.
const PART_OF_TITLE = 3;
const NOT_IN_TITLE = 9;

// Scores are compared from the left, less is better; the second is how often a node is used, negated. Where ours were
// found by their title, nodes that are known to be used stay before them.
function scoresAt(place) {
  return ([rank, ...rest]) => {
    if (rank < NOT_IN_TITLE) return [rank, place / FIRST.length - 1, ...rest];
    return [PART_OF_TITLE, place - Number.MAX_SAFE_INTEGER, ...rest];
  };
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
