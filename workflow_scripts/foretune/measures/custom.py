"""Your own measures: write each as a function below `@measure`.

A measure that is registered here appears in every table and plot of the study. Its name is the
function's name. An example, the share of the images whose nearest text is that of their class:

    from foretune.measures.registry import ROWS, measure

    @measure("Radford et al. 2021", inputs=ROWS, higher_is_better=True)
    def zero_shot_accuracy(task):
        correct = sum(
            int(((block @ task.texts.T).argmax(1) == labels).sum())
            for block, labels in task.blocks()
        )
        return correct / task.n

`foretune.measures.registry` documents the arguments; `foretune.measures.alignment` has short
examples that need class sums alone.
"""
