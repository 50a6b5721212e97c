exec(open("train_core.py").read())
