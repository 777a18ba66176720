"""What the notes in the shipped workflows say, before the list of files."""

COMPARE = """## Settings side by side
**NAG-PAG Compare** stands in the place of guidance, sampler and VAE decode. It draws the prompt under every setting,
and with guidance off, and puts the pictures on one sheet. No numbers to note down: the sheet is labelled.

**What to turn, in this order**
1. **axes**: the first line is the columns, the second the rows. Try `preset: gentle, default, strong`,
   `blocks: auto; 9-18` or `start_percent: 0, 0.2, 0.4`. A line with one value, such as `alpha: 0.3`, holds for all.
2. **seeds**: more of them show what the settings do, and not what one noise does.
3. The **negative prompt** counts only in the row `negative_prompt sampler's`.

Interrupt it whenever you like, and queue it again: what is drawn is kept, and only what is missing is drawn. When you
have chosen, put the values into **NAG-PAG Guidance (Advanced)** in front of a sampler: the same seed gives the same
picture.

"""
