"""How often the rules are right: audits of submissions with known verdicts, counted against those verdicts."""
