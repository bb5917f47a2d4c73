"""When a site's power is a windfall, and what its use cost: pure decisions over frozen values.

``signals`` are readings and traces, ``forecast`` looks ahead, ``policy`` and ``windows`` decide, ``power`` and
``ledger`` account, ``shipped`` is the trace that comes with the project. The watcher and the reports run this one code.
"""
