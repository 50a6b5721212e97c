"""Plan, run and compare: a submission trained, rebuilt and scored again."""
