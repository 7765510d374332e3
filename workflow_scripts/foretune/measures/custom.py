"""Your own measures: write each as a function with the decorator `@measure`.

A measure that is registered here appears in every table and plot of the study, under the
function's name. `foretune.measures.registry` documents the arguments; `foretune.measures.alignment`
has short examples that need only class sums. Remove the `# ` to try this one:
"""

# from foretune.measures.registry import ROWS, measure
#
#
# @measure("Zero-shot accuracy, Radford et al. 2021", inputs=ROWS, higher_is_better=True)
# def zero_shot_accuracy(task):
#     """Share of the images whose nearest text is that of their class."""
#     correct = 0
#     for images, labels in task.blocks():  # unit rows (B, d) and their labels (B,)
#         correct += int(((images @ task.texts.T).argmax(axis=1) == labels).sum())
#     return correct / task.n
