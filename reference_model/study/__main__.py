"""`python -m reference_model.study < WORK`: one run, in a process of its own.

Started by `python -m reference_model study run`; reads what to do as JSON, writes a line of JSON for each variant.
"""

import json
import sys

from reference_model.study.work import Work, one_thread

work = Work.from_json(sys.stdin.read())
one_thread()
for variant, measures in work.run():
    sys.stdout.write(json.dumps({"variant": variant, "measures": measures}) + "\n")
