"""What the notes in the shipped workflows say, before the list of files."""

GUIDED = """## NAG-PAG Guidance
One node between the model loader and the sampler; the second text box is wired to the sampler's negative. An empty
one will do. cfg stays at 1.0.

**What to turn, in this order**
1. **scale**: 0 is off (the plain model, bit for bit). Compare 0 and 3 with the same seed. Too much: lower it.
2. The **negative prompt**: name what you don't want. `Conditioning Zero Out` in its place counts as none.
3. **start_percent** and **end_percent**: raise the start to keep the plain picture's composition, lower the end to keep
   its texture.

It costs about a tenth of a step at 20 steps, where cfg 2 costs a whole one. With **negative_prompt** `off` the
attention of the **blocks** is disturbed instead. **NAG-PAG Guidance (Advanced)** in this node's place has all inputs.

Help: select the node and press **ⓘ** (Node Info) in the bar that appears above it.

"""

NEGATIVE = """## A negative prompt at cfg 1
FLUX.1 [dev] ignores the sampler's negative prompt at cfg 1. Here **NAG-PAG Guidance** has it worked out at some steps,
and pushes the picture away from it. It costs about a tenth of a step at 20 steps, where cfg 2 costs a whole one. Leave
cfg at 1.0.

**What to turn, in this order**
1. The **negative prompt**: name what you don't want. Leave it empty to push away from what the model draws without a
   prompt. `Conditioning Zero Out` in its place counts as none.
2. **start_percent**: here 0.2, where more of what was asked for stayed right than from the node's own 0.45 on.
3. **scale**: 3. Is what you named still there? 5 leaves it out more often. 0 is off (the plain model, bit for bit).
   Compare 0 and 3 with the same seed.
   Still there? Put **NAG-PAG Guidance (Advanced)** before this node, with its preset *NAG with a negative prompt*, and
   here **start_percent** to 0.45. It leaves it out more often still, and spoils more of the rest.
4. **NAG-PAG Guidance (Advanced)** in this node's place has all inputs: **alpha** and **tau** say
   how strongly, **renew_every** for how much of a step, **reach** whether what the model predicts is pushed or what it
   does inside.

Help: select the node and press **ⓘ** (Node Info) in the bar that appears above it.

"""

DIAGNOSTICS = """## NAG-PAG, seen at work
The text-to-image graph with four nodes that show what guidance does.

1. **Inspect Model** says what this model has, what a block spec would guide and cost, what else is on the model and
   what may get in the way. Read it first.
2. **Drawn strength** is ComfyUI's own Curve Editor on the socket **curve**: left is start_percent, right is
   end_percent, the top is all of the scale. Drag the points; unplug it to follow **schedule**. The classic canvas
   shows no curve ("Node 2.0 only"), yet this one is at work there, too; ComfyUI's menu switches **Nodes 2.0** on.
3. **Record** notes what guidance does; it may stand before or after NAG-PAG Guidance.
4. **Plot** draws it after the sampling: change by step and block, strength, tokens at the limit, change over the
   picture.

**How to read it**: a reach beyond the attention has one row, where it is merged, as here the prediction; with reach
`attention` every block has its own, and one with little change may be left out. Where nearly all tokens are at the
limit, more scale does nothing: lower **scale**, or raise **tau**. A cosine near 1 means that the negative branch is
hardly another.

Plot needs matplotlib in ComfyUI's Python. The Curve Editor needs a ComfyUI that has it.

"""

CALIBRATE = """## What suits this model
1. Write prompts like those that you will use into the four boxes, and queue. It takes long: fewer **pictures** and
   **alphas** are faster. Interrupt it whenever you like, and queue it again: it goes on from there.
2. Look at **NAG-PAG Calibrate**: pictures without guidance above and under the best candidate below, and all candidates
   with their errors. Candidates whose bars overlap are as good as each other; then the smaller alpha is the better one.
3. The best **blocks** and **alpha** go over two links into **NAG-PAG Guidance (Advanced)**, which draws a large picture
   with them. Write them down there, pull the links off and bypass Calibrate: from then on it costs nothing.

With the default numbers Calibrate samples 6 times 128 small pictures in 12 steps: without guidance and with 5 alphas,
pushed away from the empty prompt. Blocks count where **negative_prompt** is off, in both nodes. More prompts are joined
as these are, by `Conditioning (Combine)`.

"""

COMPARE = """## Settings side by side
**NAG-PAG Compare** stands in the place of guidance, sampler and VAE decode. It draws the prompt under every setting,
and with guidance off, and puts the pictures on one sheet. No numbers to note down: the sheet is labelled.

**What to turn, in this order**
1. **axes**: the first line is the columns, the second the rows. Try `preset: gentle, default, strong`,
   `start_percent: 0, 0.2, 0.45` or `negative_prompt: off, sampler's`. A line with one value, such as `alpha: 0.3`,
   holds for all.
2. **seeds**: more of them show what the settings do, and not what one noise does.
3. The **negative prompt** counts everywhere but in the row `negative_prompt off`; **blocks** count there alone.

Interrupt it whenever you like, and queue it again: what is drawn is kept, and only what is missing is drawn. When you
have chosen, put the values into **NAG-PAG Guidance (Advanced)** in front of a sampler: the same seed gives the same
picture.

"""

QWEN_IMAGE = """## NAG-PAG Guidance on Qwen-Image
Qwen-Image with the 8-step LoRA, at cfg 1, where it would ignore the sampler's negative prompt: **NAG-PAG Guidance**
carries it. It stands right behind the model loader; the LoRA and the shift come after it.

It was never measured on Qwen-Image's pictures. On small models of random weights it does there what it does on FLUX, so
compare for yourself: scale 0 and 3 with the same seed.

**What to turn, in this order**
1. **scale**: 0 is off (the plain model, bit for bit). Too much: lower it.
2. The **negative prompt**: name what you don't want. An empty one will do.
3. **start_percent** and **end_percent**: raise the start to keep the plain picture's composition, lower the end to keep
   its texture.

Without the LoRA (bypass it): 20 steps or more and cfg 4. cfg then heeds the negative prompt itself; guidance pushes
both predictions alike, which cfg does not enlarge, and costs nothing more.

"""

WAN = """## NAG-PAG Guidance on Wan
All frames are guided. The node stands right behind the model loader; the shift comes
after it.

It was never measured on Wan's videos. On small models of random weights it does there what it does on FLUX, so compare
for yourself: scale 0 and 3 with the same seed.

**What to turn, in this order**
1. **scale**: 0 is off (the plain model, bit for bit). Wan 2.1 wants cfg 6, which has the negative prompt worked out
   anyway: guidance costs nothing more here, and cfg does not enlarge what it does.
2. The **negative prompt**: name what you don't want. cfg 6 pushes away from it already; guidance adds to that, from
   **start_percent** on at most what cfg 7.5 would. At cfg 1, with a distilled model or LoRA, guidance alone heeds it.
3. **negative_prompt** off: guidance then pushes away from a disturbed attention, which cfg does not do, and which cfg
   enlarges: take scale 0.5.
4. **start_percent** and **end_percent**: raise the start to keep the plain video's layout and motion, lower the end to
   keep its texture.

"""
