"""Does a model read ahead in what it is scored by?  Scored windows again, with another text behind a cut.

What is compared is what the model said while it was scored.  It does not help a script to notice that it is looked at:
then it behaves, and contradicts its own scores.  `probe` looks, `own` does at a script that adapts by itself, `power`
says what they would have seen, `strict` scores targets from their prefixes alone, `findings` judges.
"""
