"""What train.py and eval.py share: the T5, the data as ids, answers and their scores."""
