"""``make fuzz``: every parser that reads the network or a file is given what nobody meant it to read.

Each input ends in acceptance or in the refusal that the parser documents. What once did otherwise is kept under
``corpus/<parser>`` and is read again by ``tests/test_fuzz.py``.
"""
